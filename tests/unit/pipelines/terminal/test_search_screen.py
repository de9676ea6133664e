"""What a person sees of a search, on a terminal and in a log."""

from types import SimpleNamespace

import pytest
from rich.console import Console

from dytrack_pipelines.terminal import screen, search_screen
from dytrack_platform.config import SearchConfig
from dytrack_platform.experiment.search.front.members import Member
from dytrack_platform.experiment.search.points.threshold_front import Point
from dytrack_platform.experiment.search.request import Standing
from dytrack_platform.experiment.search.trials.record import TrialRecord


def trial(number, status="finished", **more):
    reports = [] if status == "failed" else [{"epoch": 2, "hypervolume": 0.25 + number}]
    changes = {"train.head_lr": 0.00123456, "model.exits": [1, 4], "model.recycling": "add"}
    return TrialRecord(number=number, changes=changes, status=status, reports=reports, **more)


def standing(*trials, fresh=1):
    point = Point(
        exits=(1, 4), thresholds=(0.5,), shares=(0.5, 0.5), values={"iou": 0.712, "gmacs": 0.0345}
    )
    return Standing(
        trials=trials, budget=4, hypervolume=0.5, points=(point,), elapsed=30.0, fresh=fresh
    )


def member(name, *, on_front=True, measured=True, ms=2.5):
    return Member(
        name=name,
        exits=(1, 4),
        policy={},
        changes={},
        iou=0.7,
        ms=ms,
        gmacs=0.0345,
        closed_loop={"iou": 0.68, "success_auc": 0.61, "gmacs": 0.03} if measured else None,
        on_front=on_front,
        weights=None,
    )


def test_a_log_has_a_line_for_each_trial_that_ended_in_this_command(capsys):
    with search_screen.watching(SearchConfig()) as show:
        show(standing(trial(0), fresh=0))  # it ended in an earlier run, and was told then
        show(standing(trial(0), trial(1, "running")))
        show(standing(trial(0), trial(1, "failed", reason="the loss is nan")))
        show(standing(trial(0), trial(1, "failed", reason="the loss is nan")))
    (line,) = capsys.readouterr().out.splitlines()
    assert line == (
        "trial-001 failed (head_lr 0.00123, exits 1-4, recycling add): the loss is nan; "
        "2/4 trials (0 stopped early, 1 failed), hypervolume 0.5000, 1:00 left"
    )


def test_a_terminal_has_a_table_of_trials_and_of_the_front_so_far(monkeypatch):
    terminal = Console(force_terminal=True, width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115,PTH123
    monkeypatch.setattr(screen, "console", terminal)
    with search_screen.watching(SearchConfig()) as show:
        show(standing(trial(0, "stopped"), trial(1, "running")))
    shown = terminal.export_text()
    terminal.file.close()
    assert "trial-000" in shown
    assert "1.2500" in shown
    assert "0.712" in shown
    assert "1/4 trials (1 stopped early, 0 failed)" in shown


def test_the_front_has_promise_and_measurement_side_by_side(capsys):
    front = SimpleNamespace(
        members=(member("01"), member("02", on_front=False, measured=False, ms=None)),
        hypervolume=0.123,
        notes={"undecided": {"02": {"cheaper": "01"}}},
    )
    failed = trial(3, "failed", reason="no memory")
    record = SimpleNamespace(trials=[trial(0), failed])
    search_screen.show_front(SimpleNamespace(front=front, record=record))
    said = capsys.readouterr().out
    rows = {
        cells[0]: cells[1:]
        for line in said.splitlines()
        if len(cells := [cell.strip() for cell in line.strip("│").split("│")]) > 3
    }
    assert rows["01 *"] == ["1-4", "0.700", "0.680", "0.610", "0.0345", "2.50", ""]
    assert rows["02"] == ["1-4", "0.700", "", "", "0.0345", "", "undecided to 01"]
    assert "trial-003 failed: no memory" in said


@pytest.mark.parametrize(("ms", "told"), [(2.5, ", 2.50 ms"), (None, "")])
def test_a_member_in_one_line(ms, told):
    line = search_screen.in_words(member("01", ms=ms), "picked")
    measured = "IoU 0.700 (0.680 measured), 0.0345 GMACs (0.0300 measured)"
    assert line == f"picked: 01, exits 1-4, {measured}{told}"
    line = search_screen.in_words(member("01", ms=ms, measured=False), "picked")
    assert line == f"picked: 01, exits 1-4, IoU 0.700, 0.0345 GMACs{told}"

"""Trials over Ray Tune that go wrong, are stopped or go on: what is told of them."""

import contextlib
import json
import os
import resource
import signal
import time
from pathlib import Path

import psutil
import pytest
import ray.tune
import torch
from optuna.trial import TrialState

from dytrack_platform.config import resolve
from dytrack_platform.experiment.search.trials import full
from dytrack_platform.experiment.search.trials.full import Watching, run_trials
from dytrack_platform.experiment.search.trials.record import SearchRecord
from dytrack_platform.experiment.search.trials.trial import Job

pytestmark = pytest.mark.ray


@pytest.fixture
def lab(values, tmp_path, ray_session, monkeypatch):
    """Return a function that runs trials of a made kind, and gives their record."""

    def go(trial, *, watching=None, record=None, **changes):
        config = resolve(
            values, {"train.workers": 1, **{f"search.{k}": v for k, v in changes.items()}}
        )
        monkeypatch.setattr(full, "_train", trial)
        location = str(tmp_path / "lab")
        record = record or SearchRecord.open(location, "full", config, {})
        job = Job(recipe={}, reference=(0.0, 1.0), location=location)
        run_trials(config, job, record, watching or Watching())
        return record

    return go


def made_trial(fault):
    """Make a trial whose ``fault`` is called with its number and epoch before each report."""

    def trial(drawn, job):
        number = int(drawn["number"])
        for epoch in (1, 2):
            fault(number, epoch)
            value = 0.1 + 0.01 * number
            values = {"iou": value, "gmacs": 0.5}
            point = {"exits": [2], "thresholds": [], "shares": [1.0], "values": values}
            ray.tune.report(
                {
                    "epoch": epoch,
                    "hypervolume": value if fault(number, -epoch) is None else float("nan"),
                    "points": json.dumps([{**point, "by_sequence": {}}]),
                    "seconds": {"steps": 0.0, "evaluation": 0.0},
                    "losses": {},
                    "memory_megabytes": 1.0,
                }
            )

    return trial


def take_more_memory_than_it_may():
    """Ask for 4 GB under a limit of 1 GB more than the process has: the kernel refuses."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = psutil.Process().memory_info().vms + 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        torch.ones(2**30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_trials_that_go_wrong_are_told_as_failed_and_the_others_go_on(lab, monkeypatch):
    def fault(number, epoch):
        if number == 1 and epoch == 1:
            raise ValueError("made to raise")
        if number == 2 and epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 3 and epoch < 0:
            return "nan"
        if number == 4 and epoch == 2:  # after a report
            raise RuntimeError("made to crash after a report")
        if number == 5 and epoch == 1:
            take_more_memory_than_it_may()
        return None

    seen = []
    original = full.RecordedSearch

    class Seen(original):
        def __init__(self, *given):
            super().__init__(*given)
            seen.append(self)

    monkeypatch.setattr(full, "RecordedSearch", Seen)
    record = lab(made_trial(fault), trials=8, epochs=2, scheduler="none")
    states = [trial.status for trial in record.trials]
    assert states == ["finished"] + ["failed"] * 5 + ["finished"] * 2
    reasons = [trial.reason for trial in record.trials]
    assert "made to raise" in reasons[1]
    assert "process died" in reasons[2]
    assert "not finite" in reasons[3]
    assert "made to crash" in reasons[4]
    assert reasons[5].startswith("it ran out of memory (")
    assert "allocate" in reasons[5]
    assert reasons[5].endswith("lower search.max_concurrent or train.batch_size")
    # None of them counts, and none keeps the sampler waiting or repels it.
    assert len(record.union()) == 3
    told = [trial.state for trial in seen[0]._study.trials]
    assert told.count(TrialState.FAIL) == 5
    assert told.count(TrialState.RUNNING) == 0
    assert len(seen[0]._study.best_trials) == 1


@pytest.fixture
def small_group():
    """A control group of 200 MB: what takes more in it is killed by the kernel."""
    whole = Path("/sys/fs/cgroup")
    old = (whole / "memory").is_dir()
    group = (whole / "memory" if old else whole) / f"dytrack-{os.getpid()}"
    try:
        group.mkdir()
        limit = group / ("memory.limit_in_bytes" if old else "memory.max")
        limit.write_text(str(200 * 2**20))
    except OSError as error:
        group.is_dir() and group.rmdir()
        pytest.skip(f"no control group with a limit of memory can be made here: {error}")
    yield group
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:  # until the last process in it is gone
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.1)


def test_a_trial_that_the_kernel_kills_for_its_memory_is_told_as_failed(lab, small_group):
    def fault(number, epoch):
        if number == 1 and epoch == 2:  # after a report
            (small_group / "cgroup.procs").write_text(str(os.getpid()))
            _ = b"x" * 2**30
        return

    record = lab(made_trial(fault), trials=3, epochs=2, scheduler="none", max_concurrent=1)
    assert [trial.status for trial in record.trials] == ["finished", "failed", "finished"]
    assert record.trials[1].reason == "its process died: it was killed, or ran out of memory"
    killed = [line for line in _counts(small_group) if line.startswith("oom_kill ")]
    assert killed == ["oom_kill 1"]


def _counts(group):
    for name in ("memory.events", "memory.oom_control"):
        if (group / name).is_file():
            return (group / name).read_text().splitlines()
    return []


def test_a_trial_in_the_lower_half_is_stopped_and_told_as_pruned(lab):
    record = lab(made_trial(lambda number, epoch: None), trials=8, epochs=2, max_concurrent=1)
    states = [trial.status for trial in record.trials]
    assert states.count("failed") == 0
    assert all(len(t.reports) == 1 for t in record.trials if t.status == "stopped")
    assert "finished" in states


def test_a_search_that_goes_on_compares_with_the_trials_of_before(lab, values, tmp_path):
    given = {"trials": 4, "epochs": 2, "max_concurrent": 1}
    overrides = {"train.workers": 1, **{f"search.{k}": v for k, v in given.items()}}
    record = SearchRecord.open(str(tmp_path / "lab"), "full", resolve(values, overrides), {})
    drawn = {"model.recycling": "none", "distillation.feature": 0.1}
    for exits in ([2], [1, 2]):
        known = record.begin({"model.exits": exits, **drawn})
        told = {"hypervolume": 0.9, "losses": {}, "memory_megabytes": 1.0, "points": "[]"}
        for epoch in (1, 2):
            record.report(known, {"epoch": epoch, **told}, 1.0)
        record.end(known, "finished")
    # New ones are worse than these: the first of them too.
    again = lab(made_trial(lambda number, epoch: None), **given)
    assert [trial.status for trial in again.trials] == ["finished"] * 2 + ["stopped"] * 2
    assert [len(trial.reports) for trial in again.trials] == [2, 2, 1, 1]


def test_an_interrupted_trial_comes_first_and_keeps_its_number(lab, values, tmp_path):
    given = {"trials": 6, "epochs": 2, "scheduler": "none", "max_concurrent": 1}
    overrides = {"train.workers": 1, **{f"search.{k}": v for k, v in given.items()}}
    config = resolve(values, overrides)
    record = SearchRecord.open(str(tmp_path / "lab"), "full", config, {})
    drawn = {"model.recycling": "none", "distillation.feature": 0.1}
    for exits in ([2], [1, 2]):
        record.begin({"model.exits": exits, **drawn})
    began = []
    watching = Watching(began=lambda trial: began.append(trial.number))
    trial = made_trial(lambda number, epoch: None)
    again = lab(trial, watching=watching, **given)
    assert began == list(range(6))
    assert [t.changes["model.exits"] for t in again.trials][:2] == [[2], [1, 2]]
    assert all(t.status == "finished" for t in again.trials)
    assert [len(t.reports) for t in again.trials] == [2] * 6

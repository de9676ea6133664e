"""No name and no number on the screen is ever cut."""

import io
import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from dytrack_model.errors import InputError
from dytrack_pipelines.terminal import screen

COLUMNS = ["point", "AUC", "P", "ms p50", "GMACs", "exits after block 2 / 6 / 12"]
ROWS = [
    ["balanced", "0.6123", "0.7891", "12.34", "1.234", "47 % 26 % 27 %"],
    ["cv2-Nano with a long name [of its own]", "0.6720", "0.9640", "5.00", "", ""],
]


@pytest.fixture
def shown(monkeypatch):
    def show(width, columns=COLUMNS, rows=ROWS, title="made: 16 sequences, by lasot-matlab"):
        out = io.StringIO()
        console = Console(file=out, width=width, highlight=False, soft_wrap=True)
        monkeypatch.setattr(screen, "console", console)
        screen.table(title, columns, rows)
        return out.getvalue()

    return show


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 140])
def test_every_name_and_number_is_whole_at_every_width(shown, width):
    text = shown(width)
    for row in ROWS:
        for value in row:
            assert value in text
    for column in COLUMNS:
        assert column in text
    assert "…" not in text


def test_a_table_that_fits_is_a_table_and_no_line_is_wider_than_the_screen(shown):
    wide = shown(140)
    assert "┃" in wide
    assert max(map(len, wide.splitlines())) <= 140
    narrow = shown(40)
    assert "┃" not in narrow
    assert "  ms p50 12.34" in narrow.splitlines()


@pytest.mark.parametrize("width", [40, 60, 80])
def test_the_tables_of_evaluation_and_scores_are_whole(shown, monkeypatch, width):
    from dytrack_pipelines.terminal import tables

    out = io.StringIO()
    shown(width)
    monkeypatch.setattr(screen, "console", Console(file=out, width=width, soft_wrap=True))
    scores = dict.fromkeys(tables._COLUMNS, 0.12345)
    point = {"name": "balanced", "exit_share": [0.5, 0.5], **scores}
    tables.show_points(
        {
            "points": [point],
            "baselines": [point | {"name": "random-balanced"}],
            "dataset": "made",
            "sequences": 16,
            "frames": 1121,
            "protocol": "got10k",
            "exit_blocks": [2, 4],
        }
    )
    tables.show_scores("got10k", {"ours": scores})
    text = out.getvalue()
    assert "random-balanced" in text
    assert text.count("0.1235") == 8 or text.count("0.123") >= 8
    assert "…" not in text


def test_an_evaluation_says_that_it_starts_and_then_how_long_it_takes(monkeypatch):
    from dytrack_pipelines.terminal.progress import progress_line

    out = io.StringIO()
    monkeypatch.setattr(screen, "console", Console(file=out, width=80, soft_wrap=True))
    show = progress_line(screen.Line(None, every_s=0))
    show(SimpleNamespace(finished=0, total=8, frames_per_second=0.0, seconds_left=None))
    show(SimpleNamespace(finished=2, total=8, frames_per_second=51.4, seconds_left=65.0))
    assert out.getvalue().splitlines() == [
        "evaluating: 0/8 runs, starting",
        "evaluating: 2/8 runs, 51 frames/s, 1:05 left",
    ]


def test_a_log_of_what_was_refused_at_once_is_not_left(tmp_path):
    path = tmp_path / "new" / "out" / "evaluation.log"

    def refuse(*told):
        with screen.log_file(path):
            for sentence in told:
                logging.getLogger("dytrack_platform").info(sentence)
            raise InputError("no such tracker")

    with pytest.raises(InputError):
        refuse()
    assert not list(tmp_path.iterdir())
    for told in (("begun",), ("begun",), ()):  # what was told stays
        with pytest.raises(InputError):
            refuse(*told)
    assert path.read_text().count("begun") == 2


def test_a_closed_standard_output_is_no_error():
    words = [sys.executable, "-m", "dytrack_pipelines.cli", "--version"]
    shell = 'exec "$@" >&-'
    done = subprocess.run(["sh", "-c", shell, "sh", *words], stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr

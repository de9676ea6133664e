"""``dytrack score`` and ``dytrack compare`` as a user calls them."""

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from dytrack_pipelines.commands.compare import compare
from dytrack_pipelines.commands.score import score
from dytrack_platform.errors import ConfigurationError, ResultError
from dytrack_platform.evaluation.scoring.result_files import format_boxes

BOXES = np.column_stack([np.arange(20) + 30.0, np.full(20, 40.0), np.full((20, 2), 25.0)])


@pytest.fixture
def call():
    app = typer.Typer()
    app.command()(score)
    app.command()(compare)

    def run(*words):
        done = CliRunner().invoke(app, [str(word) for word in words])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    return run


@pytest.fixture
def benchmark(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("car-1", "dog-2", "cat-3"):
        files = {"anno": BOXES, "results/good": BOXES + rng.normal(0, 1, BOXES.shape)}
        files["results/poor"] = BOXES + rng.normal(0, 6, BOXES.shape)
        for folder, boxes in files.items():
            path = tmp_path / folder / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(format_boxes(boxes))
    return tmp_path


def test_score_writes_the_agreed_json_at_full_precision(call, benchmark):
    out = benchmark / "scores.json"
    places = ("--annotations", benchmark / "anno", "--results", benchmark / "results")
    call("score", "--protocol", "lasot-matlab", *places, "--json-file", out)
    written = json.loads(out.read_text())
    assert written["protocol"] == "lasot-matlab"
    good = written["trackers"]["good"]
    for key in ("success_auc", "precision20", "norm_precision20"):
        assert 0 < good[key] <= 1
        assert set(good["sequences"]) == {"car-1", "dog-2", "cat-3"}
        assert key in good["sequences"]["car-1"]
    lengths = [len(good[f"{name}_curve"]) for name in ("success", "precision", "norm_precision")]
    assert lengths == [21, 51, 51]
    assert good["attributes"] == {}
    assert good["success_auc"] > written["trackers"]["poor"]["success_auc"]


def test_got10k_adds_its_own_scores(call, benchmark):
    out = benchmark / "scores.json"
    places = ("--annotations", benchmark / "anno", "--results", benchmark / "results")
    done = call("score", "--protocol", "got10k", *places, "--json-file", out)
    good = json.loads(out.read_text())["trackers"]["good"]
    assert 0 < good["ao"] < 1
    assert {"sr50", "sr75"} <= set(good)
    assert "no image size" in done.output


def test_a_tracker_with_an_error_is_named_after_the_others_were_written(call, benchmark):
    (benchmark / "results" / "poor" / "car-1.txt").write_text("1,2,3,4\n")
    out = benchmark / "scores.json"
    places = ("--annotations", benchmark / "anno", "--results", benchmark / "results")
    with pytest.raises(ResultError, match="not scored: poor: car-1: 1 results for 20"):
        call("score", "--protocol", "pysot-otb", *places, "--json-file", out)
    assert list(json.loads(out.read_text())["trackers"]) == ["good"]


def test_compare_writes_a_page_and_its_numbers(call, benchmark):
    page = benchmark / "page.html"
    folders = (benchmark / "results" / "good", benchmark / "results" / "poor")
    places = ("--annotations", benchmark / "anno", "--draws", 200, "--out", page)
    call("compare", *folders, "--protocol", "ostrack-otb", *places)
    numbers = json.loads((benchmark / "page.json").read_text())
    assert numbers["differences"]["poor"]["value"] < 0
    assert page.is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--protocol", "otb"), "protocol: must be one of lasot-matlab"),
        ((), "protocol: give one of"),
        (("--protocol", "pysot-otb"), "give --annotations DIR, or --dataset"),
        (("--protocol", "vot-supervised"), "give VOT's folder of sequences"),
        (
            ("--protocol", "vot-supervised", "--workers", 2),
            "--workers: has no meaning with vot",
        ),
        (
            ("--protocol", "vot-longterm", "--absent", "flags"),
            "--absent: has no meaning with vot",
        ),
        (("--protocol", "pysot-otb", "--eao", "5,30"), "--eao: has no meaning with pysot-otb"),
    ],
)
def test_a_mistake_is_refused(call, benchmark, words, message):
    with pytest.raises(ConfigurationError, match=message):
        call("score", "--results", benchmark / "results", *words)


def test_a_wrong_range_of_lengths_is_refused(call, benchmark):
    words = ("--protocol", "vot-supervised", "--annotations", benchmark, "--eao", "5-30")
    with pytest.raises(ConfigurationError, match="eao: expected LOW,HIGH as in 46,291"):
        call("score", "--results", benchmark / "results", *words)

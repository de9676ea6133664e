"""``--json`` means the same in every command that reports: JSON alone on standard output."""

import inspect
import json
import shutil
import typing

import pytest
import torch

from dytrack_model import checkpoint
from dytrack_model.config import variant
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import OperatingPoint
from dytrack_pipelines import cli
from dytrack_pipelines.commands.cluster import jobs as jobs_command
from dytrack_pipelines.commands.cluster.jobs import jobs_app
from dytrack_pipelines.commands.config import config_app
from dytrack_pipelines.commands.data import data_app
from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import AsJson
from dytrack_platform.experiment.cluster import jobs

SILENT = {"demo", "serve", "trax", "ui", "submit", "init", "attach", "logs", "stop"}
"""They run until they are stopped, pass on another command's words, or only write one file."""


@pytest.fixture
def tracker(tmp_path):
    torch.manual_seed(0)
    points = [OperatingPoint(name="balanced", thresholds=(0.5, 0.5))]
    return checkpoint.save(tmp_path / "tracker", DyTrackNetwork(variant("test")), points)


@pytest.fixture
def told(dytrack):
    """Return a function that runs a command with --json and gives what it printed, parsed."""

    def run(*words, code=0):
        done = dytrack(*map(str, words), "--json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    return run


def test_every_command_that_reports_can_do_it_in_json():
    apps = (cli.app, config_app, data_app, jobs_app)
    commands = [info.callback for app in apps for info in app.registered_commands]
    without = set()
    for command in commands:
        hints = typing.get_type_hints(command, include_extras=True)
        if "as_json" in inspect.signature(command).parameters:
            assert hints["as_json"] == AsJson, command.__name__
        else:
            without.add(command.__name__)
    assert without == SILENT


def test_people_read_standard_output_again_when_the_command_has_ended(dytrack):
    assert dytrack("train", "--json").returncode == 2
    assert not screen.console.stderr
    assert "reference-tiny" in dytrack("train").stdout


def test_recipes_and_the_cost_of_a_training(told):
    assert "tiny" in {one["name"] for one in told("train", code=2)}
    cost = told("train", "test", "--dry-run", "--set", "train.epochs=3")
    assert cost["steps"] * 32 >= cost["pairs"] > 0
    assert cost["folder"].endswith("/test")


@pytest.mark.slow
def test_an_evaluation_prints_its_summary(told, made, tracker, tmp_path):
    out = tmp_path / "out"
    words = ("--dataset", "got10k", "--root", made, "--split", "test")
    found = told(
        *("evaluate", *words, "--model", tracker, "--point", "full", "--baseline", "static"),
        *("--out", out, "--no-mlflow"),
    )
    assert found == {**json.loads((out / "summary.json").read_text()), **found}
    assert [row["name"] for row in found["points"]] == ["full"]
    assert (found["folder"], found["run"]) == (str(out), None)


def test_scores_and_their_comparison(told, tmp_path):
    for name, x in (("truth", 10), ("results/one", 10), ("results/two", 14)):
        (tmp_path / name).mkdir(parents=True)
        for sequence in ("a", "b"):
            (tmp_path / name / f"{sequence}.txt").write_text(f"{x},10,20,20\n" * 12)
    words = ("--protocol", "pysot-otb", "--annotations", tmp_path / "truth")
    scores = told("score", *words, "--results", tmp_path / "results")
    assert scores["trackers"]["one"]["success_auc"] > scores["trackers"]["two"]["success_auc"]
    kept = tmp_path / "scores.json"
    assert told("score", *words, "--results", tmp_path / "results", "--json-file", kept) == scores
    assert scores.items() <= json.loads(kept.read_text()).items()
    page = tmp_path / "page.html"
    folders = (tmp_path / "results" / name for name in ("one", "two"))
    pair = told("compare", *folders, *words, "--out", page)
    assert set(pair["scores"]) == {"one", "two"}
    assert pair["page"] == str(page)


def test_what_data_hold_and_what_is_wrong_with_them(told, made, made_clips, tmp_path):
    words = ("--dataset", "got10k", "--root", made, "--split", "test")
    (counted,) = told("data", "inspect", *words)
    assert counted["sequences"] == 3
    assert len(counted["sizes"]) == len(counted["size_edges"]) - 1
    (counted,) = told("data", "inspect", "--prepared", made_clips)
    assert counted["sequences"] == 10
    assert told("data", "check", *words, "--no-frames") == []
    shutil.copytree(made / "test", tmp_path / "test")
    (tmp_path / "test/test_000002/00000003.jpg").write_bytes(b"no picture")
    words = ("--dataset", "got10k", "--root", tmp_path, "--split", "test")
    (fault,) = told("data", "check", *words, code=2)
    assert (fault["sequence"], fault["frame"]) == ("test_000002", 2)
    assert "00000003.jpg" in fault["reason"]


def test_a_tracker_that_is_written(told, tracker, tmp_path):
    shrunk = told("shrink", tracker, "--out", tmp_path / "small")
    assert shrunk["bytes"] == (tmp_path / "small/model.safetensors").stat().st_size


def test_jobs_of_a_cluster(told, monkeypatch):
    class Listed:
        submission_id, driver_exit_code, start_time = "train-1", 0, 1_000
        metadata, entrypoint = {"command": "dytrack train tiny"}, "python x"

        class status:
            value = "SUCCEEDED"

    monkeypatch.setattr(jobs, "listed", lambda _: [Listed])
    (job,) = told("jobs", "list")
    assert (job["job"], job["state"], job["exit_code"]) == ("train-1", "SUCCEEDED", 0)
    assert job["started"] == jobs_command._clock(1_000)
    assert job["command"] == "dytrack train tiny"


def test_numbers_that_are_none_become_null(capsys):
    screen.json({"a": float("nan"), "b": [float("inf"), 1.0]})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.0]}

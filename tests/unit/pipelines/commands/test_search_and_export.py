"""What search and export print, with what they call stood for: that is tested elsewhere."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dytrack_model import checkpoint
from dytrack_model.config import variant
from dytrack_model.network import DyTrackNetwork
from dytrack_model.runtime import export
from dytrack_platform.experiment.search import search as searching
from dytrack_platform.experiment.search.front import rebuild
from dytrack_platform.experiment.search.front.members import Member


def member(name, auc, ms):
    return Member(
        name=name,
        exits=(1, 4),
        policy={"name": name, "thresholds": [0.5]},
        changes={},
        iou=0.7,
        ms=ms,
        gmacs=ms / 100,
        closed_loop={"iou": 0.68, "success_auc": auc, "ms": ms, "gmacs": ms / 100},
        on_front=True,
        weights=None,
    )


@pytest.fixture
def searched(monkeypatch):
    """Stand for the search: it takes the request, and leaves three members."""
    asked = []
    front = SimpleNamespace(
        mode="full",
        hypervolume=0.123,
        members=(member("01", 0.5, 1.0), member("02", 0.64, 2.0), member("03", 0.65, 9.0)),
        notes={"undecided": {}},
    )
    files = (Path("f/front.json"), Path("f/front/01.yaml"))

    def search(request, show, say):
        asked.append(request)
        say("two trials are there")
        return SimpleNamespace(
            front=front, record=SimpleNamespace(trials=[]), run_id="r", files=files
        )

    monkeypatch.setattr(searching, "search", search)
    return asked


def test_a_front_and_the_member_that_was_picked(dytrack, searched):
    words = ["--trials", "3", "--dataset", "got10k", "--root", "x", "--out", "f", "--threads", "2"]
    done = dytrack("search", "test", *words, "--pick", "ms<=5, max auc", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [one["name"] for one in told["members"]] == ["01", "02", "03"]
    assert (told["chosen"], told["run"], told["hypervolume"]) == ("02", "r", 0.123)
    assert "two trials are there" in done.stderr
    assert "picked: 02, exits 1-4, IoU 0.700 (0.680 measured), 0.0200 GMACs" in done.stderr
    assert "front: f/front.json" in done.stderr
    assert "01.yaml" not in done.stderr
    (request,) = searched
    assert request.config.search.trials == 3
    assert (request.source.root, request.out, request.how.threads) == ("x", "f", 2)


def test_half_a_dataset_and_a_second_name_are_refused(dytrack, searched):
    done = dytrack("search", "test", "--dataset", "got10k")
    assert done.returncode == 2
    assert "--dataset: goes with --root; give both, or neither" in done.stderr
    done = dytrack("search", "test", "other")
    assert done.returncode == 2
    assert "only  dytrack search report RUN  takes a second name" in done.stderr
    assert dytrack("search", "report").returncode == 2
    assert searched == []


def test_a_report_is_built_again(dytrack, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        rebuild, "rebuild", lambda run, out: asked.append((run, out)) or (tmp_path / "front.html",)
    )
    done = dytrack("search", "report", "abc", "--out", str(tmp_path), "--json")
    assert json.loads(done.stdout) == {"files": [str(tmp_path / "front.html")]}
    assert "front.html" in done.stderr
    assert asked == [("abc", tmp_path)]


@pytest.fixture
def tracker(tmp_path):
    torch.manual_seed(0)
    return checkpoint.save(tmp_path / "tracker", DyTrackNetwork(variant("test")))


def test_an_export_says_how_near_it_is_and_in_what_it_runs(dytrack, tracker, tmp_path, monkeypatch):
    asked = []

    def write(saved, folder, kind, batch):
        asked.append((saved.network.config.exits, folder, kind, batch))
        return 1.5e-6

    monkeypatch.setattr(export, "export", write)
    monkeypatch.setattr(
        export, "load", lambda folder: SimpleNamespace(runtime="openvino", precision="bf16")
    )
    out = tmp_path / "out"
    done = dytrack(
        *("export", str(tracker), "--out", str(out), "--runtime", "openvino", "--batch", "2"),
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert asked == [((1, 2, 4), out, "openvino", 2)]
    assert json.loads(done.stdout) == {
        "folder": str(out),
        "exits": [1, 2, 4],
        "largest_difference": 1.5e-6,
        "runtime": "openvino",
        "precision": "bf16",
    }
    assert "largest difference to PyTorch in fp32: 1.5e-06" in done.stderr
    assert "by itself openvino runs it in bf16 here" in done.stderr


def test_ranges_are_asked_for_where_int8_has_none(dytrack, tracker, tmp_path):
    words = ("export", str(tracker), "--out", str(tmp_path / "out"))
    done = dytrack(*words, "--calibrate", str(tmp_path))
    assert done.returncode == 2
    assert "give --precision int8 too" in done.stderr
    done = dytrack(*words, "--precision", "int8")
    assert done.returncode == 2
    assert "this tracker has no ranges yet" in done.stderr
    assert not (tmp_path / "out").exists()

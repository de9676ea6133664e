"""``--dry-run`` says what a command comes to, and leaves no trace."""

import json

import numpy as np
import pytest

from dytrack_model import checkpoint
from dytrack_model.config import variant
from dytrack_model.network import DyTrackNetwork
from dytrack_platform.config import resolve, to_dict
from dytrack_platform.datasets.prepared.preparation import finish, plan_preparation
from dytrack_platform.datasets.prepared.shards import write_shard
from dytrack_platform.datasets.prepared.windows import ClipConfig
from dytrack_platform.experiment.search.forecast import search_cost
from dytrack_platform.experiment.search.request import Request
from dytrack_platform.experiment.search.trials.record import SearchRecord

WORDS = ("--search-size", "128", "--frames", "4", "--span", "10")


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A working folder in which nothing may appear."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    assert list(folder.iterdir()) == []


def told(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_preparation_is_counted_exactly_and_estimated_closely(dytrack, made, tmp_path, empty):
    words = ("prepare", "--dataset", "got10k", "--root", str(made), "--split", "train")
    done = dytrack(*words, *WORDS, "--out", str(empty / "clips"), "--dry-run", "--json")
    foretold = told(done)
    assert "clips to cut" in done.stderr
    # What the preparation then really writes.
    config = ClipConfig(search_size=128, frames=4, span=10)
    plan = plan_preparation("got10k", str(made), "train", str(tmp_path / "clips"), config)
    written = {job.file: write_shard(job) for job in plan.missing}
    real = finish(plan, written)
    assert (foretold["clips"], foretold["frames"]) == (real.clips, real.frames)
    assert (foretold["sequences"], foretold["shards"]) == (real.sequences, len(plan.jobs))
    size = sum(path.stat().st_size for path in (tmp_path / "clips").rglob("part-*"))
    assert foretold["disk_bytes"] == pytest.approx(size, rel=0.5)
    assert foretold["core_seconds"] > 0
    # A finished one has nothing left to do, and stays as it is.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "clips").rglob("*")}
    done = dytrack(*words, *WORDS, "--out", str(tmp_path / "clips"), "--dry-run", "--json")
    again = told(done)
    assert (again["finished"], again["clips"], again["disk_bytes"]) == (again["shards"], 0, 0)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "clips").rglob("*")} == before


def test_a_mistake_is_found_as_without_it(dytrack, made, empty):
    words = ("prepare", "--dataset", "got10k", "--root", str(made), "--split", "nowhere")
    done = dytrack(*words, "--out", str(empty / "clips"), "--dry-run")
    assert done.returncode == 2
    done = dytrack("search", "test", "--mode", "post-hoc", "--dry-run", "--set", "search.space={}")
    assert done.returncode == 2
    assert "--model: names the trained tracker" in done.stderr


def test_a_search_says_its_trials_pairs_and_steps(dytrack, made_clips, empty):
    sets = [
        f'data.train=[{{"path": "{made_clips}"}}]',
        "data.pairs_per_epoch=64",
        "data.validation_share=0.4",
        "train.batch_size=4",
        'search={"trials": 6, "max_concurrent": 2, "epochs": 3, '
        '"space": {"model.exits": {"placements": {"count": [1, 2]}}}}',
    ]
    words = ["search", "test", "--dry-run", *(word for one in sets for word in ("--set", one))]
    foretold = told(dytrack(*words, "--json"))
    assert (foretold["trials"], foretold["ended"], foretold["at_a_time"]) == (6, 0, 2)
    assert foretold["steps"] == 6 * 3 * 16
    assert foretold["pairs"] == 6 * 3 * 64
    assert foretold["placements"] == 4  # of four blocks: the last alone, or one of three before it
    assert foretold["seconds"] is None
    assert foretold["disk_bytes"] > 0
    said = dytrack(*words).stdout
    assert "not known before the first one has ended here" in said
    assert "up to 1,152" in said


def request(tmp_path, **search):
    recipe = resolve(
        {
            "name": "x",
            "model": {"variant": "test"},
            "data": {"pairs_per_epoch": 64},
            "train": {"batch_size": 16, "storage": str(tmp_path), "epochs": 5},
            "search": search,
        }
    )
    return Request(config=recipe, mode="full")


def record(trials):
    content = {"trials": trials, "mode": "full", "run_id": None, "spent": 0.0, "recipe": {}}
    return SearchRecord("nowhere", content)


def test_time_is_told_at_the_pace_of_trials_that_ended(tmp_path):
    asked = request(tmp_path, trials=8, max_concurrent=3)
    ended = [
        {"number": 0, "changes": {}, "status": "finished", "seconds": {"all": 10.0}},
        {"number": 1, "changes": {}, "status": "stopped", "seconds": {"all": 20.0}},
        {"number": 2, "changes": {}, "status": "running"},
    ]
    cost = search_cost(asked, record(ended), None)
    assert (cost.trials, cost.ended) == (8, 2)
    assert cost.steps == 6 * 4
    assert cost.seconds == 2 * 15.0  # six are left, three at a time
    done = [{**ended[0], "number": k} for k in range(8)]
    assert search_cost(asked, record(done), None).seconds == 0.0


def test_a_supernet_trains_once_as_long_as_the_recipe_and_then_the_best(tmp_path):
    asked = request(tmp_path, finetuned=2, finetune_epochs=1)
    whole = Request(config=asked.config, mode="supernet")
    cost = search_cost(whole, record([]), None)
    assert cost.trials == 3
    assert cost.steps == (5 + 2 * 1) * 4


def test_post_hoc_trains_nothing_and_counts_the_placements_of_the_tracker(tmp_path):
    folder = checkpoint.save(tmp_path / "tracker", DyTrackNetwork(variant("test")))
    asked = request(tmp_path)
    cost = search_cost(Request(config=asked.config, mode="post-hoc"), record([]), folder)
    assert (cost.trials, cost.steps, cost.seconds) == (0, 0, 0.0)
    assert cost.placements == 4  # exits 1, 2 and 4: the last alone or with one or both before it
    assert np.isclose(cost.petaflops, 0)
    assert to_dict(asked.config)["name"] == "x"


def test_a_training_says_what_it_needs_that_is_not_here(dytrack, made_clips, tmp_path, empty):
    here = ("--set", f"data.train=[{{path: {made_clips}}}]")
    models = ("--set", "train.init_from=reference", "--set", "distillation.teacher=old")
    assert told(dytrack("train", "test", "--dry-run", "--json", *here))["missing"] == []
    done = dytrack("train", "test", "--dry-run", "--json", *here, *models)
    assert told(done)["missing"] == ["old"]
    done = dytrack("train", "reference", "--dry-run", "--set", f"data.root={tmp_path}")
    assert f"not on this machine: {tmp_path}/sequences, {tmp_path}/seq" in " ".join(
        done.stdout.split()
    )

"""Searches over Ray Tune: nested runs, continued and longer searches, and what goes wrong."""

import contextlib
import gc
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import mlflow
import psutil
import pytest
import yaml

from dytrack_model import checkpoint
from dytrack_platform.config import resolve
from dytrack_platform.errors import ConfigurationError, StorageError
from dytrack_platform.experiment.runs import tracking
from dytrack_platform.experiment.runs.journal import Journal
from dytrack_platform.experiment.search import search as searching
from dytrack_platform.experiment.search.front import rebuild
from dytrack_platform.experiment.search.search import Request, search
from dytrack_platform.experiment.search.trials.trial import Job, halt
from dytrack_platform.storage import files
from tests.ray import agreement

pytestmark = pytest.mark.ray

DYTRACK = [sys.executable, "-m", "dytrack_pipelines.cli"]


@pytest.fixture
def values(values):
    """Enough validation sequences to halve."""
    values["data"]["validation_share"] = 0.3
    values["train"]["batch_size"] = 4
    values["search"]["reference"] = {"iou": -0.1}  # a few steps find nothing
    return values


def quietly(standing):
    """Show nothing."""


def run(values, said=None, show=quietly, **changes):
    config = resolve(values, {"train.workers": 1, **{f"search.{k}": v for k, v in changes.items()}})
    said = [] if said is None else said
    return search(Request(config=config), show, said.append)


def children(run_id):
    client = mlflow.MlflowClient()
    return tracking.children(client, run_id, client.get_run(run_id).info.experiment_id)


def test_a_search_leaves_nested_runs_a_front_and_what_others_need(
    ray_session, store, values, tmp_path, recipe_file, dytrack
):
    said, shown = [], []
    # Keys that pairs for validation depend on: all trials are scored on the same ones nevertheless.
    values["search"]["space"] |= {
        "data.centre_jitter": {"uniform": [0.0, 3.0]},
        "train.batch_size": {"choice": [4, 8]},
    }
    values["search"]["epochs"] = 2
    values["train"]["workers"] = 1
    searched = run(values, said, shown.append)
    assert searched.front.hypervolume == pytest.approx(shown[-1].hypervolume)
    assert not list(searched.folder.glob("trials/*/state"))
    assert [trial.status for trial in searched.record.trials].count("failed") == 0
    assert len(searched.record.trials) == 3
    rows = json.loads((searched.folder / "front.json").read_text())
    for row in rows:
        assert checkpoint.load(row["weights"]).network.config.exits[-1] == 2
    kept = {f.path for f in mlflow.MlflowClient().list_artifacts(searched.run_id)}
    assert {"front.json", "front.html", "front.png", "search.json", "recipe.yaml"} <= kept
    below = children(searched.run_id)
    assert {r.info.run_name for r in below} == {"trial-000", "trial-001", "trial-002"}
    assert {r.info.status for r in below} == {"FINISHED"}
    assert all("model.exits" in r.data.params for r in below)
    # From MLflow alone the same front comes back.
    again = rebuild.rebuild(searched.run_id, tmp_path / "again")
    assert json.loads((tmp_path / "again/front.json").read_text()) == rows
    assert {path.name for path in again} >= {"front.html", "front.png", "front.json"}
    assert rebuild.pick_member(searched.run_id, "max iou").iou == max(r["iou"] for r in rows)
    # The same command again does nothing that is done; more trials are added.
    recipe_file.write_text(yaml.safe_dump(values))
    ended = dytrack("search", str(recipe_file), "--trials", "5", "--json")
    assert ended.returncode == 0, ended.stderr
    assert "going on with the search" in ended.stderr
    record = files.read_json(f"{searched.folder}/search.json")
    before = [(trial.changes, trial.reports) for trial in searched.record.trials]
    assert [(t["changes"], t["reports"]) for t in record["trials"]][:3] == before
    assert len(record["trials"]) == 5
    assert record["run_id"] == searched.run_id
    agreement.check(searched.folder, record, json.loads(ended.stdout), ended.stderr)
    with pytest.raises(ConfigurationError, match=r"^search\.seed: was 0"):
        run(values, seed=3)


def test_a_supernet_is_trained_once_and_placements_inherit(ray_session, store, values):
    values["model"] |= {"depth": 3, "exits": [1, 2, 3]}
    values["train"]["epochs"] = 1
    values["search"]["space"] = {"model.exits": {"placements": {"count": [1, 2]}}}
    config = resolve(values, {"train.workers": 1, "search.finetuned": 1})
    searched = search(Request(config=config, mode="supernet"), quietly, [].append)
    changes = [trial.changes for trial in searched.record.trials]
    assert changes[0]["model.exits"] == [1, 2, 3]
    assert len(changes) == 2
    assert changes[1]["train.init_from"].endswith("-".join(map(str, changes[1]["model.exits"])))
    for member in searched.front.members:
        config = checkpoint.load(member.weights).network.config
        assert set(member.exits) <= set(config.exits)


def test_trials_that_no_node_has_room_for_are_refused(ray_session, store, values):
    config = resolve(values, {"train.workers": 1, "train.cpus_per_worker": 500})
    with pytest.raises(
        ConfigurationError, match=r"^train\.workers: in each trial a worker needs 500 CPU"
    ):
        search(Request(config=config), quietly, [].append)


def test_a_trial_with_two_workers_goes_on_where_one_is_killed_and_ends_when_it_is_told(
    ray_session, store, values
):
    given = {"trials": 2, "epochs": 3, "max_concurrent": 1, "pairs_per_epoch": 320}
    config = resolve(values, {f"search.{k}": v for k, v in given.items()})
    request = Request(config=config)
    done, first = set(), []

    def act(standing):
        trial = standing.trials[-1] if standing.trials else None
        if trial is None or not trial.reports or trial.number in done:
            return
        done.add(trial.number)
        if trial.number == 0:
            first.append(dict(trial.reports[0]))
            below = psutil.Process().children(recursive=True)
            workers = [p for p in below if "TrainWorker" in " ".join(p.cmdline())]
            assert len(workers) == 2
            workers[0].kill()
        else:
            halt(Job(recipe={}, reference=(), location=request.location), 1)

    searched = search(request, act, [].append)
    lost, told = searched.record.trials
    assert done == {0, 1}
    # From its first epoch on: that is not done again.
    assert lost.status == "finished"
    assert [report["epoch"] for report in lost.reports] == [1, 2, 3]
    assert lost.reports[0] == first[0]
    assert told.status == "stopped"
    assert 1 <= len(told.reports) < 3
    assert searched.front.members
    assert not list(searched.folder.glob("trials/*/state"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_ends_the_search_and_it_goes_on_when_there_is_room(
    ray_session, store, values, monkeypatch
):
    original, calls = files.write_bytes, []

    def full_disk(location, content):
        calls.append(location)
        if location.endswith("search.json") and len(calls) > 6:
            raise StorageError(f"{location}: cannot be written: no space left on device")
        return original(location, content)

    monkeypatch.setattr(files, "write_bytes", full_disk)
    with pytest.raises(StorageError, match="no space left"):
        run(values)
    gc.collect()  # Ray leaves files of its own open when it is left like that
    monkeypatch.setattr(files, "write_bytes", original)
    location = Path(resolve(values).train.storage) / "tiny-search"
    run_id = json.loads((location / "search.json").read_text())["run_id"]
    assert mlflow.MlflowClient().get_run(run_id).info.status == "FAILED"
    searched = run(values)
    assert len(searched.record.trials) == 3
    assert mlflow.MlflowClient().get_run(run_id).info.status == "FINISHED"


def test_two_searches_in_one_folder_do_not_meet(ray_session, store, values):
    config = resolve(values, {"train.workers": 1})
    held, let_go = threading.Event(), threading.Event()

    def hold():
        location = Path(Request(config=config).location)
        with searching.run_lock(location, name="search.lock"):
            held.set()
            let_go.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    try:
        with pytest.raises(StorageError, match="is at work on this run"):
            run(values)
    finally:
        let_go.set()
        thread.join()


@pytest.fixture
def command(values, tmp_path, store):
    """Return a function that starts ``dytrack search`` in a process of its own."""
    mlflow.set_tracking_uri(store)  # for what this process reads
    values["train"]["workers"] = 1
    values["search"] |= {"epochs": 2, "trials": 4}

    def start(name="tiny", also=(), **changes):
        own = {**values, "name": name, "search": {**values["search"], **changes}}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(own))
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | dict(also)
        return subprocess.Popen(
            [*DYTRACK, "search", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            cwd=tmp_path,
            start_new_session=True,
        )

    return start


def wait_for(location, condition, process, seconds=180):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        record = files.read_json(f"{location}/search.json")
        if record and condition(record["trials"]):
            return record
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    raise AssertionError("it did not come that far")


def some_ended(trials):
    return any(trial["status"] in ("finished", "stopped") for trial in trials)


def test_ctrl_c_ends_a_search_with_130_and_as_killed_and_it_goes_on(command, values):
    location = f"{values['train']['storage']}/tiny-search"
    process = command()
    record = wait_for(location, some_ended, process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=90)
    assert process.returncode == 130, said
    assert "the same command goes on from there" in said
    assert mlflow.MlflowClient().get_run(record["run_id"]).info.status == "KILLED"
    assert {r.info.status for r in children(record["run_id"])} <= {"KILLED", "FINISHED"}
    before = files.read_json(f"{location}/search.json")["trials"]
    process = command()
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    after = files.read_json(f"{location}/search.json")["trials"]
    for old, new in zip(before, after, strict=False):
        assert old["changes"] == new["changes"]
        if old["status"] != "running":
            assert old["reports"] == new["reports"]
    assert mlflow.MlflowClient().get_run(record["run_id"]).info.status == "FINISHED"


@contextlib.contextmanager
def away(store, seconds):
    """Hold a store's file from now on, for so many seconds: nobody reads or writes there."""
    held = threading.Event()

    def hold():
        with contextlib.closing(sqlite3.connect(store, timeout=30, isolation_level=None)) as own:
            own.execute("BEGIN EXCLUSIVE")
            held.set()
            time.sleep(seconds)
            own.execute("ROLLBACK")

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30)
    yield
    thread.join()


def test_a_killed_search_goes_on_and_two_at_once_do_not_mix(command, values, other_store):
    """MLflow is away for a minute under the second one, which has a store of its own.

    That one waits for it at its end as long as the command of a job does; others wait for 20 s.
    """
    storage = values["train"]["storage"]
    elsewhere = f"sqlite:///{other_store}"
    in_job = {"MLFLOW_TRACKING_URI": elsewhere, "RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}
    process, other = command("one"), command("two", also=in_job, seed=5)
    wait_for(f"{storage}/two-search", lambda trials: len(trials) > 0, other)
    with away(other_store, 60):
        record = wait_for(f"{storage}/one-search", some_ended, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        done = [t for t in record["trials"] if t["status"] in ("finished", "stopped")]
        again = command("one", trials=6)
    journal = Journal(Path(f"{storage}/two-search"), lambda entries: None)
    assert journal.pending()  # it could not say all that it had to
    for one in (other, again):
        said, _ = one.communicate(timeout=300)
        assert one.returncode == 0, said
        assert "MLflow lacks" not in said
    trials = files.read_json(f"{storage}/one-search/search.json")["trials"]
    assert [trial["number"] for trial in trials] == list(range(6))
    for old in done:
        assert trials[old["number"]]["reports"] == old["reports"]
    assert len(children(record["run_id"])) == 6
    # What happened while MLflow was away is there as well.
    others = files.read_json(f"{storage}/two-search/search.json")
    assert len(others["trials"]) == 4
    mlflow.set_tracking_uri(elsewhere)
    below = {run.info.run_name: run for run in children(others["run_id"])}
    assert len(below) == 4
    for trial in others["trials"]:
        run = below[f"trial-{trial['number']:03d}"]
        assert run.info.status == "FINISHED"
        history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "hypervolume")
        assert sorted(m.step for m in history) == [r["epoch"] for r in trial["reports"]]
    own = mlflow.MlflowClient().get_run(others["run_id"])
    assert own.info.status == "FINISHED"
    assert own.data.metrics["on_front"] >= 1

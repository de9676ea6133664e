"""What clusters do to a training, on one machine: processes killed, disks full, servers away."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import numpy as np
import pytest

from dytrack_model import checkpoint
from dytrack_platform.config import resolve
from dytrack_platform.errors import DataError, StorageError
from dytrack_platform.experiment.runs import journal as journals
from dytrack_platform.experiment.runs import run_log
from dytrack_platform.experiment.train.train import train, upload_pending

pytestmark = pytest.mark.ray

DYTRACK = [sys.executable, "-m", "dytrack_pipelines.cli"]


class Watcher:
    """Sees what a training shows and says, and does something once at a step."""

    def __init__(self, **actions):
        """Take actions by name: ``at12=function``; each is called once, with this watcher."""
        self.actions = {int(name[2:]): action for name, action in actions.items()}
        self.said, self.shown = [], []

    def say(self, sentence):
        self.said.append(sentence)

    def show(self, progress):
        self.shown.append(progress)
        for step in [step for step in self.actions if progress.step >= step]:
            self.actions.pop(step)(self)

    def pid(self, rank):
        """Return the newest process of a worker."""
        found = [s for s in self.said if s.startswith(f"worker {rank} of")]
        return int(found[-1].rpartition("process ")[2])


def timed_losses(folder):
    """Return (step, loss, milliseconds since 1970) of every report in a run's journal."""
    lines = (folder / "journal.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    return [
        (entry["step"], entry["metrics"]["train/loss"], entry["time"])
        for entry in entries
        if "train/loss" in entry.get("metrics", {})
    ]


def losses(folder):
    """Return (step, loss) of every report in a run's journal."""
    return [(step, loss) for step, loss, _ in timed_losses(folder)]


def run(values, watcher, **changes):
    overrides = {"train.report_steps": 1, "train.sample_images": 0}
    overrides |= {key.replace("__", ".", 1): value for key, value in changes.items()}
    config = resolve(values, overrides)
    trained = train(config, watcher.show, watcher.say)
    return trained, Path(config.train.storage) / config.name


def test_workers_that_are_told_to_end_or_killed_are_replaced(ray_session, store, values):
    """SIGTERM leaves a checkpoint of the very step; SIGKILL costs at most the interval."""
    watcher = Watcher(
        at6=lambda w: os.kill(w.pid(1), signal.SIGTERM),
        at40=lambda w: os.kill(w.pid(1), signal.SIGKILL),
    )
    _, folder = run(values, watcher, train__epochs=25, train__checkpoint_steps=30)
    resumed = [int(re.search(r"from step (\d+)", s)[1]) for s in watcher.said if "continuing" in s]
    assert len(resumed) == 2
    assert 6 <= resumed[0] < 30  # between two checkpoints of the interval
    assert resumed[1] in (30, 60)
    reports = losses(folder)
    assert {step for step, _ in reports} == set(range(1, 101))
    first = {}
    for step, loss in reports:  # what is done again gives the same
        assert loss == first.setdefault(step, loss)


def status_of(name):
    found = mlflow.search_runs(
        experiment_names=["dytrack"],
        filter_string=f"attributes.run_name = '{name}'",
        output_format="list",
    )
    assert len(found) == 1
    return found[0].info.status, found[0].data.tags.get("failure")


def wait(condition, process, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_command_that_is_killed_or_told_to_end_continues_and_is_never_left_running(
    store, values, recipe_file
):
    command = [*DYTRACK, "train", str(recipe_file), "--set", "train.epochs=30"]
    command += ["--set", "train.workers=1", "--set", "train.checkpoint_steps=20"]
    command += ["--set", "train.report_steps=5", "--set", "train.sample_images=0"]
    folder = Path(values["train"]["storage"]) / "tiny"
    mlflow.set_tracking_uri(store)

    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    wait(lambda: list(folder.glob("step_*/state.json")), killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    wait(lambda: status_of("tiny")[0] == "KILLED", None, 120)
    assert status_of("tiny")[1] == "the command was killed"

    told = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    before = len(losses(folder))
    wait(lambda: len(losses(folder)) > before + 2, told)
    began = time.monotonic()
    os.kill(told.pid, signal.SIGTERM)
    said, _ = told.communicate(timeout=150)
    assert time.monotonic() - began < 25  # the grace period
    assert told.returncode == 128 + signal.SIGTERM
    assert int(said.split("continuing from step ")[1].split()[0]) % 20 == 0
    step = int(said.split("stopped at step ")[1].split(";")[0])
    assert (folder / f"step_{step:08d}" / "state.json").is_file()
    assert status_of("tiny")[0] == "KILLED"

    last = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert last.returncode == 0, last.stderr
    assert f"continuing from step {step} " in last.stdout
    assert checkpoint.load(folder / "tracker").notes["step"] == 120
    assert status_of("tiny") == ("FINISHED", None)
    assert list(folder.glob("*.part")) == []


def test_a_disk_that_fills_up_costs_nothing_that_was_saved(ray_session, store, values, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"no small file system can be mounted here: {made.stderr.strip()}")
    ballast = disk / "ballast"

    def fill(watcher):
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 12))

    try:
        changes = {"train__storage": str(disk / "runs"), "train__epochs": 20}
        changes |= {"train__workers": 1, "train__checkpoint_steps": 20}
        with pytest.raises(StorageError, match=r"cannot be written.*No space left.*same command"):
            run(values, Watcher(at22=fill), **changes)
        assert status_of("tiny")[0] == "FAILED"
        ballast.unlink()
        watcher = Watcher()
        trained, _ = run(values, watcher, **changes)
        (said,) = [sentence for sentence in watcher.said if "continuing" in sentence]
        resumed = int(said.split("from step ")[1].split()[0])
        assert resumed % 20 == 0
        assert resumed > 0
        assert checkpoint.load(trained.tracker).notes["step"] == 80
        assert status_of("tiny") == ("FINISHED", None)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


class Server:
    """A real MLflow server that can be ended and started again."""

    def __init__(self, folder):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.process = None

    def start(self, *_):
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        deadline = time.monotonic() + 180
        while True:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                    return
            except (OSError, urllib.error.URLError):
                assert time.monotonic() < deadline
                time.sleep(0.2)

    def arrived(self):
        """Return the steps of the newest run's losses."""
        client = mlflow.MlflowClient(self.uri)
        experiment = client.get_experiment_by_name("dytrack").experiment_id
        newest = client.search_runs([experiment])[0].info.run_id
        return {point.step for point in client.get_metric_history(newest, "train/loss")}

    def return_for_a_while(self, *_):
        """Start again, and wait for what was noted meanwhile."""
        self.start()
        wait(lambda: {1, 10, 19} <= self.arrived(), None)

    def end(self, *_):
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def test_a_server_that_is_away_for_a_while_and_at_the_end_misses_nothing(
    ray_session, values, tmp_path, monkeypatch
):
    server = Server(tmp_path)
    server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setattr(run_log, "_WAIT_S", 2.0)
    monkeypatch.setattr(journals, "_LONGEST_PAUSE_S", 1.0)
    try:
        watcher = Watcher(at3=server.end, at20=server.return_for_a_while, at40=server.end)
        trained, folder = run(values, watcher, train__epochs=14, train__workers=1)
        assert "dytrack upload" in watcher.said[-1]
        assert str(folder) in watcher.said[-1]
        assert (folder / "tracker" / "tracker.json").is_file()

        server.start()
        client = mlflow.MlflowClient(server.uri)
        assert {1, 10, 19} <= server.arrived() < set(range(1, 57))
        assert client.get_run(trained.run_id).info.status == "RUNNING"
        assert upload_pending(str(folder)) == trained.run_id
        after = [m.step for m in client.get_metric_history(trained.run_id, "train/loss")]
        assert sorted(after) == list(range(1, 57))
        assert client.get_run(trained.run_id).info.status == "FINISHED"
    finally:
        server.end()
        mlflow.set_tracking_uri(None)


def test_a_minute_without_a_server_stops_no_step_and_loses_no_point(
    ray_session, values, tmp_path, monkeypatch
):
    server = Server(tmp_path)
    server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    away_s, seen = 60.0, {}

    def leave(watcher):
        server.end()
        seen["left"], seen["from"] = time.monotonic(), watcher.shown[-1].step

    class Minute(Watcher):
        def show(self, progress):
            super().show(progress)
            if "to" not in seen and time.monotonic() - seen.get("left", np.inf) > away_s:
                seen["to"] = self.shown[-2].step  # this one is noted after it was shown
                server.start()
                wait(lambda: seen["to"] in server.arrived(), None, 180)
                os.kill(os.getpid(), signal.SIGTERM)

    try:
        changes = {"train__epochs": 60, "train__workers": 1, "train__report_steps": 20}
        with pytest.raises(SystemExit):
            run(values, Minute(at20=leave), data__pairs_per_epoch=3200, **changes)
        folder = Path(values["train"]["storage"]) / "tiny"
        noted = {(entry[0], round(entry[2])) for entry in timed_losses(folder)}
        assert seen["to"] >= seen["from"] + 60  # it went on all the while
        assert {step for step, _ in noted} >= set(range(20, seen["to"], 20))
        client = mlflow.MlflowClient(server.uri)
        experiment = client.get_experiment_by_name("dytrack").experiment_id
        (found,) = client.search_runs([experiment])
        points = client.get_metric_history(found.info.run_id, "train/loss")
        assert {(point.step, round(point.timestamp)) for point in points} == noted
        assert found.info.status == "KILLED"
    finally:
        server.end()
        mlflow.set_tracking_uri(None)


def test_data_that_changed_since_a_run_began_are_refused_with_the_numbers(
    ray_session, store, values, made, tmp_path
):
    from dytrack_platform.datasets.prepared.preparation import finish, plan_preparation
    from dytrack_platform.datasets.prepared.shards import write_shard
    from dytrack_platform.datasets.prepared.windows import ClipConfig

    def prepare(frames, out):
        config = ClipConfig(search_size=128, frames=frames)
        plan = plan_preparation("got10k", str(made), "train", str(out), config)
        finish(plan, {job.file: write_shard(job) for job in plan.jobs})

    def stop(watcher):
        os.kill(os.getpid(), signal.SIGTERM)

    prepare(8, tmp_path / "before")
    prepare(6, tmp_path / "after")
    clips = tmp_path / "clips"
    clips.symlink_to(tmp_path / "before")
    values["data"]["train"] = [{"path": str(clips)}]
    with pytest.raises(SystemExit):
        run(values, Watcher(at4=stop), train__workers=1, train__epochs=50)
    clips.unlink()
    clips.symlink_to(tmp_path / "after")
    sentence = r"data changed since .*tiny began: .* had \d+ clips of 10 .* and has \d+ clips of 10"
    with pytest.raises(DataError, match=sentence):
        run(values, Watcher(), train__workers=1, train__epochs=50)

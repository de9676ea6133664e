"""The watchdog's choice: what it does when its command's pipe closed without a word."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from dytrack_platform.errors import StorageError
from dytrack_platform.experiment.runs import watchdog
from dytrack_platform.storage.run_lock import run_lock

COMMAND = """
import sys, time
from pathlib import Path
from dytrack_platform.storage.run_lock import run_lock
from dytrack_platform.experiment.runs.watchdog import watched
with run_lock(Path(sys.argv[1])), watched(Path(sys.argv[1]), "run"):
    print("ready", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@contextlib.contextmanager
def started(folder, seconds):
    """Run a command that is watched while the body runs."""
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(folder), str(seconds)],
        stdout=subprocess.PIPE,
        env={**os.environ, "MLFLOW_TRACKING_URI": "http://127.0.0.1:1"},
    )
    with command:
        assert command.stdout.readline() == b"ready\n"
        yield psutil.Process(command.pid)


def watchdogs(folder):
    """Find the processes that watch a run, whosever they are."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if watchdog.__name__ in (words := process.info["cmdline"] or []) and str(folder) in words
    ]


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_watchdog_is_nobodys_child_and_leaves_with_its_command(tmp_path):
    with started(tmp_path, 0.5) as command:
        until(lambda: watchdogs(tmp_path))
        assert command.children(recursive=True) == []
    until(lambda: not watchdogs(tmp_path))
    assert not (tmp_path / "journal.jsonl").exists()


@pytest.mark.slow
def test_who_kills_a_command_with_all_its_children_leaves_the_watchdog(tmp_path):
    """So does Ray where a job is stopped and does not end by itself."""
    journal = tmp_path / "journal.jsonl"
    try:
        with started(tmp_path, 600) as command:
            until(lambda: watchdogs(tmp_path))
            for process in [*command.children(recursive=True), command]:
                process.kill()
        until(lambda: journal.exists() and "KILLED" in journal.read_text(), 60)
    finally:
        for process in watchdogs(tmp_path):
            process.kill()


@pytest.fixture
def noted(monkeypatch):
    """Return the runs whose end is noted; standard input is a pipe that closed."""
    ended = []
    monkeypatch.setattr(watchdog, "end_killed", lambda *run: ended.append(run) or True)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    return ended


def hold(folder, seconds):
    """Hold a run's lock for some seconds in a thread; returns once it is held."""
    held = threading.Event()

    def body():
        with run_lock(folder):
            held.set()
            time.sleep(seconds)

    thread = threading.Thread(target=body)
    thread.start()
    held.wait()
    return thread


def test_a_command_whose_lock_outlives_its_pipe_is_waited_for(noted, tmp_path):
    dying = hold(tmp_path, 0.3)
    watchdog.main(str(tmp_path), "run", str(os.getpid()))
    assert noted == [(tmp_path, "run")]
    dying.join()


def test_a_run_that_another_command_took_up_is_left_to_it(noted, tmp_path, monkeypatch):
    another = hold(tmp_path, 0.3)
    watchdog.main(str(tmp_path), "run", str(os.getpid() + 1))
    another.join()
    with run_lock(tmp_path) as before:
        assert before == os.getpid()
        monkeypatch.setattr(watchdog, "_LOCK_S", 0.1)
        with pytest.raises(StorageError, match="is at work on this run"):
            watchdog.main(str(tmp_path), "run", str(os.getpid()))
    assert noted == []


def test_a_command_that_ended_well_is_believed(noted, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"well")))
    watchdog.main(str(tmp_path), "run", str(os.getpid()))
    assert noted == []
    with run_lock(tmp_path) as before:
        assert before is None  # nobody looked at the lock

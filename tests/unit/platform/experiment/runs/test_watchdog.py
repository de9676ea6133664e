"""The watchdog's choice: what it does when its command's pipe closed without a word."""

import io
import os
import signal
import sys
import threading
import time

import pytest

from dytrack_platform.errors import StorageError
from dytrack_platform.experiment.runs import watchdog
from dytrack_platform.experiment.runs.run_lock import run_lock


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

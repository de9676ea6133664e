"""What a training refuses before Ray starts."""

import os
import time
import uuid
from types import SimpleNamespace

import pytest

from dytrack_platform.config import resolve
from dytrack_platform.errors import StorageError
from dytrack_platform.experiment.runs.store_lock import Pace, store_lock
from dytrack_platform.experiment.train import driver_channel
from dytrack_platform.experiment.train.train import train


def test_a_run_on_a_store_that_another_machine_is_at_work_on_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("DYTRACK_JOURNALS", str(tmp_path / "journals"))
    storage, said = f"memory://{uuid.uuid4().hex}", []
    values = {
        "name": "far",
        "data": {"train": [{"path": "s3://bucket/clips"}]},
        "train": {"storage": storage},
    }

    lock = f"{storage}/far/train.lock"
    (tmp_path / "theirs").mkdir()
    with (
        store_lock(lock, tmp_path / "theirs", print, Pace(beat=0.2, settle=0.1)),
        pytest.raises(StorageError, match=rf"process {os.getpid()} of .* is at work there"),
    ):
        train(resolve(values), print, said.append)
    assert f"whether process {os.getpid()} of" in said[0]


def test_a_terminal_that_is_gone_does_not_end_the_watch_over_the_run(monkeypatch, log):
    posted = driver_channel.Posted(sentences=["hello"], progress=[], values=[], images=[])
    monkeypatch.setattr(driver_channel.ray, "get", lambda asked: asked)
    channel = SimpleNamespace(drain=SimpleNamespace(remote=lambda: posted))
    looked, gone = [], iter(range(3))

    def say(sentence):
        if next(gone, None) is not None:
            raise BrokenPipeError("nobody reads")

    with driver_channel.watching(channel, None, say, None, lambda: looked.append(1)):
        until = time.monotonic() + 20
        while len(looked) < 3 and time.monotonic() < until:
            time.sleep(0.05)
    assert len(looked) >= 3
    said = [line for line in log.getvalue().splitlines() if "cannot be shown" in line]
    assert said == ["the progress of the training cannot be shown: nobody reads"]

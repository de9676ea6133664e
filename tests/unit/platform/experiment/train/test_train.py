"""What a training refuses before Ray starts."""

import os
import uuid

import pytest

from dytrack_platform.config import resolve
from dytrack_platform.errors import StorageError
from dytrack_platform.experiment.runs.store_lock import Pace, store_lock
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

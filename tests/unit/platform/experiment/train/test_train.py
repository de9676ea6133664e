"""What a training refuses before Ray starts."""

import threading
import uuid

import pytest

from dytrack_platform.config import resolve
from dytrack_platform.errors import StorageError
from dytrack_platform.experiment.train.train import train
from dytrack_platform.storage import files


def test_a_run_on_a_store_that_another_machine_is_at_work_on_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("DYTRACK_JOURNALS", str(tmp_path))
    storage, said, ended = f"memory://{uuid.uuid4().hex}", [], threading.Event()
    values = {
        "name": "far",
        "data": {"train": [{"path": "s3://bucket/clips"}]},
        "train": {"storage": storage},
    }

    def beat():
        lock = {"token": "theirs", "host": "elsewhere", "process": 7, "beat": 0}
        while True:
            lock["beat"] += 1
            files.write_json(f"{storage}/far/train.lock", lock)
            if ended.wait(0.3):
                return

    files.write_json(f"{storage}/far/train.lock", {"token": "theirs", "process": 7, "host": "e"})
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(StorageError, match="process 7 of elsewhere is at work there"):
            train(resolve(values), print, said.append)
    finally:
        ended.set()
        thread.join()
    assert "whether process 7 of" in said[0]

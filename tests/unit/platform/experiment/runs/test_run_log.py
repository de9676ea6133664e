"""A run's end where MLflow does not answer."""

import time

import pytest

from dytrack_platform.errors import StorageError
from dytrack_platform.experiment.runs import run_log, tracking


@pytest.mark.parametrize("told", [KeyboardInterrupt, SystemExit])
def test_a_job_that_was_told_to_end_does_not_wait_for_a_server(monkeypatch, tmp_path, told):
    def gone(*_):
        raise StorageError("nobody answers")

    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setattr(run_log, "_WAIT_TOLD_S", 0.1)
    monkeypatch.setattr(tracking, "begin", lambda *_: "run")
    monkeypatch.setattr(tracking, "deliver", gone)
    said = []
    began = time.monotonic()
    with pytest.raises(told), run_log.logged_run("one", tmp_path, None, said.append):
        raise told
    assert time.monotonic() - began < 5
    assert "KILLED" in (tmp_path / "journal.jsonl").read_text()
    assert said == [
        f"MLflow lacks a part of this run (nobody answers); it is kept in {tmp_path}: deliver it "
        f"with  dytrack upload {tmp_path}"
    ]

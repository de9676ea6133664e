"""A run on an object store keeps its journal where neither a job nor its node takes it away."""

import uuid
from pathlib import Path

import fsspec
import pytest

from dytrack_platform.errors import StorageError
from dytrack_platform.experiment.runs.journal import JOURNAL, Journal
from dytrack_platform.experiment.runs.journal_folder import (
    deliver_kept,
    journal_folder,
    kept_beside,
)

URL = "s3://bucket/runs/far"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    monkeypatch.delenv("DYTRACK_JOURNALS", raising=False)


@pytest.fixture
def location():
    name = f"memory://runs-{uuid.uuid4().hex}/far"
    yield name
    system = fsspec.filesystem("memory")
    if system.exists(name):
        system.rm(name, recursive=True)


def refuse(_):
    raise StorageError("it does not answer")


def note(folder):
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder, refuse)
    journal.file("recipe.yaml", b"name: far")
    journal.metrics({"loss": 1.0}, 1)


def test_a_run_in_a_folder_has_its_journal_there(tmp_path):
    assert journal_folder(str(tmp_path / "run")) == tmp_path / "run"


def test_outside_of_a_job_the_journal_of_a_url_lies_here():
    assert journal_folder(URL) == Path("journals/far")


def test_in_a_job_it_does_not_lie_in_the_jobs_own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    job = tmp_path / "job"
    job.mkdir()
    monkeypatch.chdir(job)
    folder = journal_folder(URL)
    assert folder.is_absolute()
    assert not folder.is_relative_to(job)
    assert folder.is_relative_to(tmp_path / "home")
    assert folder != journal_folder("s3://other/runs/far"), "of one name, in another bucket"
    monkeypatch.setenv("DYTRACK_JOURNALS", str(tmp_path / "given"))
    assert journal_folder(URL).parent == tmp_path / "given"


def test_what_mlflow_lacks_goes_beside_the_run_and_is_delivered_from_there(location):
    said, taken = [], []
    with kept_beside(location, said.append, new=True) as folder:
        note(folder)
    assert said == [f"what MLflow lacks lies in {location}/journal: dytrack upload {location}"]
    for path in folder.iterdir():  # the node is gone
        path.unlink()

    def deliver(found):
        assert (found / "recipe.yaml").read_bytes() == b"name: far"
        Journal(found, taken.extend).deliver_all()

    deliver_kept(location, deliver)
    assert next(entry for entry in taken if "metrics" in entry)["metrics"] == {"loss": 1.0}
    assert not fsspec.filesystem("memory").exists(f"{location}/journal/{JOURNAL}")


def test_a_run_that_fails_keeps_its_journal_too(location):
    def train():
        with kept_beside(location, print, new=True) as folder:
            note(folder)
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        train()
    assert fsspec.filesystem("memory").exists(f"{location}/journal/{JOURNAL}")


def test_what_was_delivered_is_not_kept(location):
    said = []
    with kept_beside(location, said.append, new=True) as folder:
        note(folder)
        Journal(folder, lambda _: None).deliver_all()
    assert not said
    assert not fsspec.filesystem("memory").exists(f"{location}/journal")


def test_a_journal_stays_beside_its_run_while_mlflow_is_away(location):
    with kept_beside(location, print, new=True) as folder:
        note(folder)
    (folder / JOURNAL).unlink()
    with pytest.raises(StorageError):
        deliver_kept(location, lambda found: Journal(found, refuse).deliver_all())
    assert fsspec.filesystem("memory").exists(f"{location}/journal/{JOURNAL}")


def test_a_new_run_does_not_tell_what_an_earlier_one_of_its_name_left(location):
    with kept_beside(location, print, new=True) as folder:
        note(folder)
    taken = []
    with kept_beside(location, print, new=True) as folder:
        Journal(folder, taken.extend).deliver_all()
    assert taken == []
    with kept_beside(location, print, new=True) as folder:
        note(folder)
    with kept_beside(location, print, new=False) as folder:  # the same run goes on
        Journal(folder, taken.extend).deliver_all()
    assert [entry["step"] for entry in taken if "metrics" in entry] == [1]

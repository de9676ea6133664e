"""Every fault of the MLflow store is one sentence, within seconds."""

import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS

from dytrack_platform.errors import AccessError, ModelLookupError, StorageError
from dytrack_platform.experiment.registry import promotion, registry
from dytrack_platform.experiment.runs import store, tracking


@pytest.fixture
def uri(tmp_path, monkeypatch):
    value = f"sqlite:///{tmp_path / 'm.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", value)
    return value


def _refused(match, kind=StorageError):
    began = time.monotonic()
    with pytest.raises(kind, match=match):
        tracking.connect()
    assert time.monotonic() - began < 10


def test_a_store_that_is_no_database_is_said(uri, tmp_path):
    (tmp_path / "m.db").write_bytes(b"<html>nothing here</html>" * 100)
    _refused("is no SQLite database; set MLFLOW_TRACKING_URI")
    assert (tmp_path / "m.db").read_bytes() == b"<html>nothing here</html>" * 100


def test_a_store_that_is_a_folder_or_lies_below_a_file_is_said(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'folder'}")
    _refused("is a folder")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'file' / 'm.db'}")
    _refused("cannot be made: (Not a directory|File exists)")


def test_a_locked_store_is_said(uri, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_ANSWER_S", 0.3)
    with closing(sqlite3.connect(tmp_path / "m.db")) as other:
        other.execute("CREATE TABLE t (x)")
        other.execute("BEGIN EXCLUSIVE")
        _refused("is locked by another process")


def test_a_store_that_cannot_be_written_is_said(uri, tmp_path, monkeypatch):
    with closing(sqlite3.connect(tmp_path / "m.db")) as other:
        other.execute("CREATE TABLE t (x)")
    monkeypatch.setattr(store.os, "access", lambda *_: False)  # root may write anywhere
    _refused("is not writable")
    (tmp_path / "m.db").unlink()
    _refused("cannot be made: .* is not writable")


def test_a_database_of_another_program_is_said(uri, tmp_path):
    with closing(sqlite3.connect(tmp_path / "m.db")) as other:
        other.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        other.execute("INSERT INTO alembic_version VALUES ('0000deadbeef')")
        other.commit()
    _refused("does not answer|cannot be used")


@pytest.mark.parametrize("scheme", ["http://", "postgresql://user:secret@"])
def test_a_server_that_is_gone_is_said_without_its_password(monkeypatch, scheme):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}127.0.0.1:{port}")
    _refused(r"does not answer \(.*refused\); start it", AccessError)
    with pytest.raises(AccessError) as caught:
        tracking.connect()
    assert "secret" not in str(caught.value)


def test_a_name_and_a_password_in_the_address_are_no_part_of_the_place(server):
    address, kind = server
    kind.code = 200
    store.check(address.replace("://", "://user:hush@"))
    # Without a port, what stands behind the colon would be taken for one.
    with pytest.raises(AccessError, match=r"http://user:\*\*\*@127.0.0.1 does not answer"):
        store.check("http://user:hush@127.0.0.1")


@pytest.mark.parametrize("uri", ["http://[broken", "http://127.0.0.1:none", "postgresql://[x/y"])
def test_an_address_that_is_none_is_said(uri):
    with pytest.raises(AccessError, match=r"does not answer .*; start it, or set MLFLOW_TRACKING_"):
        store.check(uri)


def test_what_answers_in_another_language_is_said():
    def answer():
        connection, _ = taken.accept()
        with connection:
            connection.recv(1024)
            connection.sendall(b"220 mail.example ESMTP\r\n")

    with socket.create_server(("127.0.0.1", 0)) as taken:

        def both():
            taken.accept()[0].close()  # the look at the port
            answer()

        threading.Thread(target=both, daemon=True).start()
        with pytest.raises(AccessError, match=r"does not answer \(220 mail.example ESMTP"):
            store.check(f"http://127.0.0.1:{taken.getsockname()[1]}")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://host:5000", "http://host:5000"),
        ("http://user@host:5000", "http://user@host:5000"),
        ("http://user:hush@host:5000", "http://user:***@host:5000"),
        ("postgresql://user:h/u@sh@host/name", "postgresql://user:***@host/name"),
        (
            "postgresql://host/name?user=u&password=hush",
            "postgresql://host/name?user=u&password=***",
        ),
        ("sqlite:////folder/m.db", "sqlite:////folder/m.db"),
    ],
)
def test_a_password_is_not_shown(uri, shown):
    assert store.shown(uri) == shown


def test_what_mlflow_says_of_a_server_is_told_without_its_password(monkeypatch):
    uri = "http://user:hush@127.0.0.1:1"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    told = str(tracking.failure(OSError(f"API request to {uri}/api/2.0 failed")))
    assert "user:***@127.0.0.1:1 does not answer: API request to http://user:***@" in told
    assert "hush" not in told


def test_a_server_that_takes_and_never_answers_is_said(monkeypatch):
    monkeypatch.setattr(store, "_ANSWER_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        _refused(r"does not answer \(timed out\)", AccessError)


def test_a_server_that_refuses_the_password_is_said_with_the_names_to_set(server, monkeypatch):
    address, _ = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    refusal = f"{address} refuses the name and the password .*401.*MLFLOW_TRACKING_USERNAME"
    _refused(refusal, AccessError)
    with pytest.raises(AccessError, match=refusal):
        registry.find("models:/dytrack@champion")
    with pytest.raises(AccessError, match=refusal):
        promotion.versions("dytrack")
    assert AccessError.exit_code == 2


@pytest.mark.slow
def test_a_deleted_experiment_is_said_with_its_cure(uri):
    number = tracking.connect()
    mlflow.MlflowClient().delete_experiment(number)
    _refused(f"is deleted; bring it back with: mlflow experiments restore --experiment-id {number}")


def test_looking_something_up_makes_no_store(uri, tmp_path):
    with pytest.raises((ModelLookupError, StorageError), match="nothing was recorded or published"):
        registry.find("models:/dytrack@champion")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_store_that_fails_is_not_taken_for_a_run_that_is_not_there(uri, monkeypatch):
    tracking.connect()
    assert not tracking.exists("0" * 32)

    def broken(*_):
        raise mlflow.MlflowException("the database is on fire")

    monkeypatch.setattr(mlflow.MlflowClient, "get_run", broken)
    with pytest.raises(StorageError, match="on fire"):
        tracking.exists("0" * 32)


def test_one_process_at_a_time_makes_the_tables(uri, monkeypatch):
    inside, most = [], []

    def make():
        with store.making(uri):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]
    monkeypatch.setattr(store, "_MAKING_S", 0.1)
    with store.making(uri), pytest.raises(StorageError, match="another process has held"):
        _hold(uri)


def _hold(uri):
    failed: list[StorageError] = []

    def hold():
        try:
            with store.making(uri):
                pass
        except StorageError as error:
            failed.append(error)

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    raise failed[0]


def test_an_experiment_that_another_process_makes_at_this_moment_is_ours(uri, monkeypatch):
    """A fresh server has no lock for all who meet it: two may both find nothing there."""
    made = mlflow.entities.Experiment("7", "dytrack", "", "active")
    answers = [None, made, None, None]

    def too_late(*_, **__):
        raise MlflowException("it is there", RESOURCE_ALREADY_EXISTS)

    monkeypatch.setattr(mlflow, "get_experiment_by_name", lambda _: answers.pop(0))
    monkeypatch.setattr(mlflow, "create_experiment", too_late)
    assert tracking.connect() == "7"
    _refused("it is there")  # and is not found all the same
    assert answers == []


@pytest.mark.slow
def test_processes_that_meet_a_fresh_store_all_find_it(uri):
    code = "from dytrack_platform.experiment.runs import tracking; print(tracking.connect())"
    environment = dict(os.environ)
    some = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(5)
    ]
    ended = [process.communicate(timeout=300) for process in some]
    assert [process.returncode for process in some] == [0] * 5, ended
    assert len({said.strip() for said, _ in ended}) == 1

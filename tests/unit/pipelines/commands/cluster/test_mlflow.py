"""``dytrack mlflow up``: refused before anything starts, or a server that ends with the command."""

import base64
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing

import psutil
import pytest

from dytrack_pipelines.commands.cluster import mlflow, mlflow_server
from dytrack_platform.errors import StorageError
from dytrack_platform.experiment.doctor import services


def test_a_port_in_use_is_named_before_anything_is_made(dytrack, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = ["--folder", str(tmp_path / "new"), "--port", str(port)]
        done = dytrack("mlflow", "up", *words)
    assert done.returncode == 1
    assert f"127.0.0.1:{port} is in use" in done.stderr
    assert not (tmp_path / "new").exists()


def test_passwords_are_whole_and_their_owners_alone(tmp_path):
    (tmp_path / "admin.password").touch()  # what a kill between making and writing left
    settings = mlflow._authentication(tmp_path)
    password = (tmp_path / "admin.password").read_text()
    assert len(password) == len(settings["MLFLOW_FLASK_SERVER_SECRET_KEY"]) == 32
    assert f"admin_password = {password}\n" in (tmp_path / "users.ini").read_text()
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}
    assert mlflow._authentication(tmp_path) == settings


@pytest.mark.slow
def test_tables_that_cannot_be_brought_to_the_newest_are_said(tmp_path):
    file = tmp_path / "m.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE experiments (x)")
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        database.execute("INSERT INTO alembic_version VALUES ('0000deadbeef')")
        database.commit()
    with pytest.raises(StorageError, match=r"tables of sqlite.* cannot be brought .*0000deadbeef"):
        mlflow_server.upgrade(f"sqlite:///{file}")
    assert StorageError.exit_code == 1


@pytest.mark.slow
def test_an_old_database_is_upgraded(tmp_path):
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine

    uri = f"sqlite:///{tmp_path / 'm.db'}"
    Base.metadata.create_all(create_engine(uri))
    command.upgrade(_get_alembic_config(uri), "728d730b5ebd")  # MLflow 1.11
    mlflow_server.upgrade(uri)
    with closing(sqlite3.connect(tmp_path / "m.db")) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    assert "trace_info" in tables


@pytest.mark.slow
def test_a_server_with_a_password_asks_for_it_and_ends_with_the_command(tmp_path, monkeypatch):
    process, port = _started(tmp_path, "--auth")
    uri = f"http://127.0.0.1:{port}"
    try:
        code = _first_answer(process, uri, tmp_path)
        password = (tmp_path / "admin.password").read_text()
        assert code == 401
        assert _status(f"{uri}/version", "admin:wrong") == 401
        assert _status(f"{uri}/version", f"admin:{password}") == 200
        # And the doctor has nothing to cure, unless the password is wrong.
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
        checks = services.judge_mlflow(uri, remote=True)
        assert [check for check in checks if not check.ok] == []
        assert "mlflow-writable" in [check.check for check in checks]
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
        wrong = [check.check for check in services.judge_mlflow(uri, remote=True) if not check.ok]
        assert wrong == ["mlflow-login"]
    finally:
        process.send_signal(signal.SIGTERM)
        ended = process.wait(60)
    assert ended == 128 + signal.SIGTERM
    assert _free(port), "nobody holds the port any more"


@pytest.mark.slow
def test_a_server_ends_with_a_command_that_is_killed(tmp_path):
    process, port = _started(tmp_path)
    try:
        assert _first_answer(process, f"http://127.0.0.1:{port}", tmp_path) == 200
        servers = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.wait(10)
    _, orphans = psutil.wait_procs(servers, 30)
    for orphan in orphans:
        orphan.kill()
    assert orphans == []
    assert _free(port)


def test_a_server_that_ends_by_itself_leaves_nobody_behind(monkeypatch, tmp_path):
    """Its guard has the command's word that there is nothing to end."""
    monkeypatch.setattr(mlflow_server.sys, "executable", "/bin/true")
    some = psutil.Process().children()
    began = time.monotonic()
    assert mlflow_server.serve(f"sqlite:///{tmp_path / 'm.db'}", []) == 0
    assert time.monotonic() - began < 5
    assert psutil.Process().children() == some


def _started(folder, *words):
    """Start a server on a free port; returns the command's process, and the port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--folder", str(folder), "--port", str(port), "--workers", "1", *words]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dytrack_pipelines.cli", "mlflow", "up", *words],
            stdout=log,
            stderr=log,
            env={k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")},
        )
    return process, port


def _first_answer(process, uri, folder):
    """Return the status of the first answer."""
    deadline = time.monotonic() + 180
    while (code := _status(f"{uri}/version")) == 0 and time.monotonic() < deadline:
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.3)
    return code


def _free(port):
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            again.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _status(url, who=None):
    request = urllib.request.Request(url)
    if who:
        encoded = base64.b64encode(who.encode()).decode()
        request.add_header("Authorization", f"Basic {encoded}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0

"""What is wrong with a dashboard or with MLflow is found, alone, with its cure."""

import base64
import socket
import sqlite3
import time
from contextlib import closing

import pytest

from dytrack_platform.experiment.doctor import services
from dytrack_platform.experiment.doctor.services import judge_mlflow, judge_token
from dytrack_platform.experiment.runs import store
from dytrack_platform.storage import addresses


def _basic(name, password):
    return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


@pytest.fixture
def guarded(server, monkeypatch, tmp_path):
    """A server that knows us, and the environment that says who we are."""
    uri, kind = server
    kind.known = _basic("me", "mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "mine")
    return uri, kind


@pytest.fixture
def not_here(monkeypatch):
    """Take loopback for an address that others reach."""
    monkeypatch.setattr(addresses, "is_loopback", lambda _: False)


def _wrong(checks):
    assert all(check.cure for check in checks if not check.ok)
    return [check.check for check in checks if not check.ok]


def test_a_server_that_knows_us_is_fine(guarded):
    uri, kind = guarded
    checks = judge_mlflow(uri, remote=True)
    assert _wrong(checks) == []
    assert {"mlflow-server", "mlflow-login", "mlflow-writable", "mlflow-open"} < {
        check.check for check in checks
    }
    assert kind.posted == 1


def test_a_name_in_the_address_and_a_token_are_sent_too(guarded, monkeypatch):
    uri, kind = guarded
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}")
    named = uri.replace("://", "://me:m%2Fe@")
    kind.known = _basic("me", "m/e")
    assert _wrong(judge_mlflow(named, remote=True)) == []
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "mine")
    kind.known = "Bearer mine"
    assert _wrong(judge_mlflow(uri, remote=True)) == []


def test_a_wrong_password_is_found_and_not_told(guarded, monkeypatch):
    uri, _ = guarded
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hush")
    checks = judge_mlflow(uri, remote=True)
    assert _wrong(checks) == ["mlflow-login"]
    assert "MLFLOW_TRACKING_USERNAME" in next(check.cure for check in checks if not check.ok)
    assert not any("hush" in check.detail for check in checks)
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}")
    (found,) = [check for check in judge_mlflow(uri, remote=True) if not check.ok]
    assert "refuses who gives no name (401)" in found.detail


def test_a_server_that_lets_us_read_only_is_found(guarded):
    uri, kind = guarded
    kind.may_write = False
    (found,) = [check for check in judge_mlflow(uri, remote=True) if not check.ok]
    assert found.check == "mlflow-writable"
    assert "does not let this name write (403: not yours)" in found.detail
    assert "EDIT on the experiment dytrack" in found.cure


def test_an_experiment_that_another_process_makes_at_this_moment_is_written_to(guarded):
    uri, kind = guarded
    look_up, early = kind.do_GET, [404]

    def do_GET(self):
        if "get-by-name" in self.path and early:
            self._answer(early.pop(), "")
        else:
            look_up(self)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        made = self.path.endswith("/create")
        self._answer(*((400, '{"error_code": "RESOURCE_ALREADY_EXISTS"}') if made else (200, "{}")))

    kind.do_GET, kind.do_POST = do_GET, do_POST
    checks = judge_mlflow(uri, remote=True)
    assert _wrong(checks) == []
    assert early == []


def test_an_open_server_is_found_unless_it_listens_to_this_machine_only(server, monkeypatch):
    uri, kind = server
    kind.code = 200
    assert _wrong(judge_mlflow(uri, remote=True)) == []
    monkeypatch.setattr(addresses, "is_loopback", lambda _: False)
    assert _wrong(judge_mlflow(uri, remote=True)) == ["mlflow-open"]


def test_a_server_that_fails_is_not_taken_for_an_open_one(guarded, not_here):
    uri, kind = guarded
    kind.code = 500
    (found,) = [check for check in judge_mlflow(uri, remote=True) if not check.ok]
    assert found.check == "mlflow-open"
    assert "answers 500 to who gives no name, which says nothing" in found.detail


def test_an_old_server_is_found(guarded):
    uri, kind = guarded
    kind.version = "3.4.0"
    (found,) = [check for check in judge_mlflow(uri, remote=True) if not check.ok]
    assert found.check == "mlflow-server"
    assert "3.4.0; 3.15 closes known holes" in found.detail


def test_a_store_that_is_gone_or_of_one_machine_is_found(tmp_path):
    assert _wrong(judge_mlflow("http://127.0.0.1:1", remote=True)) == ["mlflow"]
    file = f"sqlite:///{tmp_path}/m.db"
    assert _wrong(judge_mlflow(file, remote=False)) == []
    (found,) = judge_mlflow(file, remote=True)
    assert not found.ok
    assert "a file of one machine" in found.detail


def test_a_store_that_says_nothing_is_found_in_time(monkeypatch):
    monkeypatch.setattr(store, "_ANSWER_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        began = time.monotonic()
        uri = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        assert _wrong(judge_mlflow(uri, remote=True)) == ["mlflow"]
        assert time.monotonic() - began < 2


def test_a_database_that_cannot_be_written_is_found(tmp_path, monkeypatch):
    with closing(sqlite3.connect(tmp_path / "m.db")) as database:
        database.execute("CREATE TABLE experiments (name)")
    read_only = f"sqlite:///file:{tmp_path}/m.db?mode=ro&uri=true"
    found = services._database(read_only)
    assert not found.ok
    assert "readonly database" in found.detail
    assert services._database(f"sqlite:///{tmp_path}/m.db").ok


@pytest.fixture
def token(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    return lambda word: monkeypatch.setenv("RAY_AUTH_TOKEN", word)


def test_a_token_that_is_absent_or_wrong_is_found(server, token):
    uri, kind = server
    kind.known = "Bearer right"
    assert "which has no token" in judge_token(uri).detail
    token("wrong")
    found = judge_token(uri)
    assert not found.ok
    assert "which has a token" in found.detail
    assert "~/.ray/auth_token" in found.cure
    token("right")
    assert judge_token(uri).ok


def test_a_cluster_that_takes_everybody_is_found(server, token, monkeypatch):
    uri, kind = server
    kind.code, kind.known = 204, "Bearer right"
    assert judge_token(uri).ok, "on loopback"
    monkeypatch.setattr(addresses, "is_loopback", lambda _: False)
    for word in ("", "right"):
        token(word)
        found = judge_token(uri)
        assert not found.ok
        assert "asks for no token" in found.detail
    kind.code = 401
    assert judge_token(uri).ok


def test_what_is_no_dashboard_is_found(server, token):
    uri, kind = server
    kind.code = 404
    assert "answers 404, as no dashboard does" in judge_token(uri).detail
    assert "does not answer" in judge_token("http://127.0.0.1:1").detail
    assert "does not answer" in judge_token("http://name:0x/").detail

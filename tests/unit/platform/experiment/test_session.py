"""A Ray that cannot be reached or started is one sentence, at once."""

import socket
import time

import pytest

from dytrack_platform.errors import AccessError, ClusterError
from dytrack_platform.experiment.cluster import session, token


def _refused(match, kind=AccessError):
    began = time.monotonic()
    with pytest.raises(kind, match=match), session.ray_session():
        pass
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nobody_listens(monkeypatch, scheme):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    _refused(
        f"nobody answers at RAY_ADDRESS={address} .*: start the cluster, or name another address"
    )


def test_a_cluster_of_another_ray_does_not_take_this_driver(monkeypatch):
    def other(**how):
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.50.0")

    monkeypatch.setattr(session.ray, "init", other)
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        _refused(f"RAY_ADDRESS={address} does not take this driver: Version mismatch")
    assert AccessError.exit_code == 2


@pytest.mark.parametrize("address", ["no.such.host.invalid:6379", "127.0.0.1:99999"])
def test_an_address_that_is_none(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    _refused("nobody answers at RAY_ADDRESS")


def test_a_temporary_folder_with_a_long_name(monkeypatch, tmp_path):
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    _refused("at most 36 are possible; set RAY_TMPDIR to a shorter folder", ClusterError)


def test_a_temporary_folder_that_is_not_there(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", "/no/such")
    _refused("cannot write to /no/such; set RAY_TMPDIR", ClusterError)


def test_a_home_that_is_closed_holds_no_token(monkeypatch):
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)

    def closed():
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(token.Path, "home", closed)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    assert token.token() == ""
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert token.token() == "secret"


def test_a_token_is_looked_for_where_ray_looks(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")  # set to nothing is not set
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    assert token.token() == ""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("at home\n")
    assert token.token() == "at home"
    (tmp_path / "file").write_text("named\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "file"))
    assert token.token() == "named"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    assert token.token() == "given"

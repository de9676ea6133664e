"""A Ray that cannot be reached or started is one sentence, at once."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import grpc
import pytest

from dytrack_platform.errors import AccessError, ClusterError
from dytrack_platform.experiment.cluster import probe, session, token


def _refused(match, kind=AccessError):
    began = time.monotonic()
    with pytest.raises(kind, match=match), session.ray_session():
        pass
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nobody_listens(monkeypatch, scheme):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    _refused(
        f"nobody answers at RAY_ADDRESS={address} .*: start the cluster, or name another address"
    )


@pytest.fixture
def head(monkeypatch):
    """What a Ray head answers to the first question: nothing where the answer is a status."""
    answer = []

    class Head(grpc.GenericRpcHandler):
        def service(self, details):
            def reply(request, context):
                told.append(dict(details.invocation_metadata).get("authorization"))
                if answer:
                    context.abort(answer[0], "as planted")
                return b""

            return grpc.unary_unary_rpc_method_handler(reply)

    told = []
    server = grpc.server(ThreadPoolExecutor(1), handlers=(Head(),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    monkeypatch.setenv("RAY_ADDRESS", address)
    yield SimpleNamespace(address=address, answer=answer, told=told)
    server.stop(None)


SEVEN_LINES = """Version mismatch: The cluster was started with:
    Ray: 2.50.0
    Python: 3.11.7
This process on node 10.0.0.1 was started with:
    Ray: 2.60.0
    Python: 3.12.1
"""


def test_a_cluster_of_another_ray_does_not_take_this_driver(head, monkeypatch):
    def other(**how):
        raise RuntimeError(SEVEN_LINES)

    monkeypatch.setattr(session.probe, "require_node", lambda _: None)
    monkeypatch.setattr(session.ray, "init", other)
    _refused(
        f"^the cluster at RAY_ADDRESS={head.address} does not take this driver: it runs Ray 2.50.0 "
        "on Python 3.11.7, and this process Ray 2.60.0 on Python 3.12.1: install the cluster's "
        "versions here, or start the cluster with these$"
    )
    assert AccessError.exit_code == 2


@pytest.mark.parametrize(("failures", "joins"), [(1, True), (2, False)])
def test_a_busy_head_is_asked_once_more(head, monkeypatch, failures, joins):
    """By ray://, where the head starts a process for each driver."""
    asked = []

    def busy(**how):
        asked.append(how["address"])
        if len(asked) <= failures:
            raise ConnectionAbortedError(
                "Initialization failure from server: RuntimeError: Starting Ray client server "
                "failed. See ray_client_server_23000.err for detailed log"
            )

    monkeypatch.setattr(session.ray, "init", busy)
    monkeypatch.setenv("RAY_ADDRESS", f"ray://{head.address}")
    if joins:
        with session.ray_session():
            pass
    else:
        with pytest.raises(AccessError, match="Starting Ray client server failed"):
            session.ray_session().__enter__()
    assert len(asked) == 2


def test_a_machine_without_a_node_does_not_join(head, monkeypatch):
    """Ray would look for a node on it for a minute, and not tell that this is what it lacks."""
    some = [SimpleNamespace(info={"name": "bash"})]
    monkeypatch.setattr(session.probe.psutil, "process_iter", lambda _: some)
    _refused(
        f"^no node of the cluster at RAY_ADDRESS={head.address} runs on this machine, and who "
        "joins needs one here: run the command on one of its nodes, or send it there with: dytrack "
        "submit$"
    )
    asked = []
    monkeypatch.setattr(session.ray, "init", lambda **how: asked.append(how["address"]))
    monkeypatch.setenv("RAY_ADDRESS", f"ray://{head.address}")
    with session.ray_session():
        assert asked == [f"ray://{head.address}"], "there another process joins"
    some[0].info["name"] = "raylet"
    monkeypatch.setenv("RAY_ADDRESS", head.address)
    with session.ray_session():
        assert asked[1:] == [head.address]


def test_a_cluster_that_asks_for_its_token(head, monkeypatch):
    head.answer.append(grpc.StatusCode.UNAUTHENTICATED)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    _refused("asks for its token, and this machine has no token: put the cluster's token into")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    _refused("asks for its token, and this machine has another token: put the cluster's token")
    assert head.told == [None, "Bearer wrong"]


def test_what_takes_connections_and_says_nothing(monkeypatch):
    monkeypatch.setattr(probe, "_ANSWER_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        _refused(f"^RAY_ADDRESS={address} takes connections and says nothing within 0.3 s: start")


def test_what_is_no_ray_head(server, monkeypatch):
    address = server[0].removeprefix("http://")
    monkeypatch.setenv("RAY_ADDRESS", address)
    _refused(f"^what answers at RAY_ADDRESS={address} is no Ray head .*: name the head's own port")


def test_a_certificate_that_is_not_there(monkeypatch):
    monkeypatch.setenv("RAY_USE_TLS", "1")
    monkeypatch.setenv("RAY_TLS_CA_CERT", "/no/such")
    with socket.create_server(("127.0.0.1", 0)) as head:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{head.getsockname()[1]}")
        _refused("RAY_USE_TLS: /no/such cannot be read .*: set RAY_TLS_CA_CERT")


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


def test_a_head_that_starts_no_process_is_asked_once_more_and_that_is_said(monkeypatch, log):
    asked = []

    def init(**words):
        asked.append(words["address"])
        if len(asked) == 1:
            raise ConnectionAbortedError(session._NOT_UP)

    monkeypatch.setattr(session.ray, "init", init)
    session._join("ray://head:10001", None)
    assert asked == ["ray://head:10001"] * 2
    assert "did not start a process for this driver; asking once more" in log.getvalue()

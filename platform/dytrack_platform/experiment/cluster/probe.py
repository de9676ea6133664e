"""Ask a Ray head who it is before Ray does: Ray itself waits for minutes, and tells no reason."""

import os
import re
from contextlib import closing
from pathlib import Path

import grpc
import psutil

from dytrack_platform.errors import AccessError
from dytrack_platform.experiment.cluster.token import token

_ANSWER_S = 6.0
_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
_VERSIONS = re.compile(r"Ray: (\S+)\s+Python: (\S+)")


class JoiningError(AccessError):
    """A cluster cannot be joined."""

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(f"{what}: {cure}")
        self.what, self.cure = what, cure


def require_head(place: str, named: str) -> None:
    """Refuse what takes connections and is no Ray head that would have this machine.

    Args:
        place: ``host:port`` where somebody listens.
        named: How the user gave it, for the message.

    Raises:
        JoiningError: It says nothing, speaks something else, or refuses the token.
    """
    with closing(_channel(place)) as channel:
        try:
            channel.unary_unary(_ALIVE)(b"", timeout=_ANSWER_S, metadata=_metadata())
        except grpc.RpcError as error:
            code, details = error.code(), str(error.details())
        else:
            return
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        has = "another token" if _metadata() else "no token"
        raise JoiningError(
            f"the cluster at {named} asks for its token, and this machine has {has}",
            "put the cluster's token into ~/.ray/auth_token, or set RAY_AUTH_TOKEN",
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        raise JoiningError(
            f"{named} takes connections and says nothing within {_ANSWER_S:g} s",
            "start that Ray head again, or name another address",
        )
    if code is grpc.StatusCode.UNAVAILABLE:
        raise JoiningError(
            f"what answers at {named} is no Ray head ({details.rpartition(': ')[2][:200]})",
            "name the head's own port, 6379 unless it was started with another",
        )
    # Anything else came from a Ray: one that is reached by ray:// does not know the question.


def require_node(named: str) -> None:
    """Refuse to join from a machine on which no node runs: Ray would look for one for a minute.

    Args:
        named: How the user gave the cluster's address, for the message.

    Raises:
        JoiningError: There is none.
    """
    if not any(process.info["name"] == "raylet" for process in psutil.process_iter(["name"])):
        raise JoiningError(
            f"no node of the cluster at {named} runs on this machine, and who joins needs one here",
            "run the command on one of its nodes, or send it there with: dytrack submit",
        )


def mismatch(named: str, said: str) -> JoiningError:
    """Say in a sentence what Ray says in seven lines: two versions do not go together.

    Args:
        named: How the user gave the cluster's address.
        said: Ray's message.
    """
    found = _VERSIONS.findall(said)
    shown = " ".join(said.split())[:300]
    if len(found) == 2:
        there, here = (f"Ray {ray} on Python {python}" for ray, python in found)
        shown = f"it runs {there}, and this process {here}"
    return JoiningError(
        f"the cluster at {named} does not take this driver: {shown}",
        "install the cluster's versions here, or start the cluster with these",
    )


def _metadata() -> list[tuple[str, str]]:
    """Return what Ray would send along: its client sends a token only where it is told to."""
    known = token() if os.environ.get("RAY_AUTH_MODE") == "token" else ""
    return [("authorization", f"Bearer {known}")] if known else []


def _channel(place: str) -> grpc.Channel:
    options = [("grpc.enable_http_proxy", 0)]
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
        return grpc.insecure_channel(place, options)
    files = (os.environ.get(f"RAY_TLS_{name}") for name in ("CA_CERT", "SERVER_KEY", "SERVER_CERT"))
    try:
        authority, key, certificate = (Path(file).read_bytes() if file else None for file in files)
    except OSError as error:
        raise JoiningError(
            f"RAY_USE_TLS: {error.filename} cannot be read ({error.strerror})",
            "set RAY_TLS_CA_CERT, RAY_TLS_SERVER_KEY and RAY_TLS_SERVER_CERT to readable files",
        ) from error
    return grpc.secure_channel(
        place, grpc.ssl_channel_credentials(authority, key, certificate), options
    )

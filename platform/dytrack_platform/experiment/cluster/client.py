"""Ray's Jobs API as it is asked here: it answers within seconds, or a sentence says why not."""

import contextlib
import logging
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from dytrack_platform.experiment.cluster import session  # sets Ray's environment first

import aiohttp  # isort: skip
import ray  # isort: skip
import requests  # isort: skip
from ray.dashboard.modules.dashboard_sdk import SubmissionClient  # isort: skip
from ray.exceptions import AuthenticationError  # isort: skip
from ray.job_submission import JobDetails, JobSubmissionClient  # isort: skip

from dytrack_platform.errors import AccessError

_ANSWER_S = 10.0
"""Seconds without a byte after which a dashboard counts as silent."""
_WORK_S = 60.0
"""The same where it has work to do: to take a package, start a job, send a whole log."""
_PORTS = {"http": 80, "https": 443}
LOST = (requests.RequestException, aiohttp.ClientError, ConnectionError, RuntimeError, TimeoutError)
"""What the client raises where the cluster does not answer, or answers with an error."""
_NOT_RAYS = (KeyError, TypeError, ValueError)
"""What it raises over an answer that is not Ray's."""

# Names and sizes of what is uploaded, one by one, say nothing that a user can act on.
for _room in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job", "_private.runtime_env"):
    logging.getLogger(f"ray.{_room}").setLevel(logging.ERROR)


class Unreachable(AccessError):
    """The cluster does not answer just now, or not as it should."""


class UnknownJob(AccessError):
    """The cluster answers, and has no such job."""


class Client(JobSubmissionClient):
    """Ray's client, which by itself waits for ever and follows ``RAY_ADDRESS`` if that is set."""

    def __init__(self, address: str) -> None:
        """Prepare to ask the dashboard at this address; nothing is sent yet."""
        SubmissionClient.__init__(self, address)
        self._client_ray_version = ray.__version__

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:  # noqa: ANN401
        quick = method == "GET" and not endpoint.endswith("/logs")
        options.setdefault("timeout", (_ANSWER_S, _ANSWER_S if quick else _WORK_S))
        return super()._do_request(method, endpoint, **options)

    def ray_version(self) -> str:
        """Return the version of the cluster's Ray."""
        return str(self._asked("/api/version")["ray_version"])

    def hosts(self) -> set[str]:
        """Return the names of the cluster's hosts, as they name themselves."""
        return set(self._asked("/nodes?view=hostNameList")["data"]["hostNameList"])

    def _asked(self, endpoint: str) -> Any:  # noqa: ANN401  (JSON)
        answer = self._do_request("GET", endpoint)
        if answer.status_code != requests.codes.ok:
            raise ValueError(f"HTTP status {answer.status_code}")
        return answer.json()


def connect(address: str) -> Client:
    """Reach a cluster's dashboard.

    Raises:
        AccessError: The address is none, nobody answers there or is silent, the token is wrong, it
            is no Ray or another version of it.
    """
    host, port = _place(address)
    session.require_answer(f"{host}:{port}", f"--address {address}")
    with refusals(address):
        client = Client(address)
        version = client.ray_version()
    if version != ray.__version__:
        raise AccessError(
            f"the cluster at {address} has Ray {version} and this machine Ray {ray.__version__}; "
            f"run this from an environment with ray=={version}, or start the cluster with "
            f"{ray.__version__}"
        )
    return client


def details(client: Client, address: str, job: str) -> JobDetails:
    """Ask what became of a job.

    Raises:
        UnknownJob: There is no such job.
        Unreachable: The cluster does not answer.
        AccessError: It asks for its token.
    """
    with refusals(address, job):
        return client.get_job_info(job)


def same_machine(client: Client, address: str) -> bool:
    """Say whether every node of a cluster is this machine, so that it has this machine's files.

    Raises:
        AccessError: The cluster does not answer.
    """
    with refusals(address):
        return client.hosts() == {socket.gethostname()}


@contextlib.contextmanager
def refusals(address: str, job: str = "") -> Iterator[None]:
    """Turn what Ray's client raises into a sentence.

    Raises:
        UnknownJob: There is no such job.
        Unreachable: The cluster does not answer, or not as Ray does.
        AccessError: It asks for its token.
    """
    try:
        yield
    except AuthenticationError as error:
        raise AccessError(
            f"the cluster at {address} asks for its token: put it into ~/.ray/auth_token, or set "
            "RAY_AUTH_TOKEN"
        ) from error
    except (*LOST, *_NOT_RAYS) as error:
        if _is_unknown(error):
            raise UnknownJob(
                f"job {job}: {address} knows no such job; dytrack jobs list --address {address} "
                "shows those that it knows"
            ) from error
        raise Unreachable(_sentence(address, error)) from error


def is_taken(error: RuntimeError) -> bool:
    """Say whether a job was refused because another one has its id."""
    return "already exists" in str(error)


def _is_unknown(error: Exception) -> bool:
    return bool(re.search(r"status code 404: .*does not exist", str(error)))


def _sentence(address: str, error: Exception) -> str:
    if isinstance(error, (requests.Timeout, TimeoutError)):
        return (
            f"{address} takes connections and has not answered for {_ANSWER_S:g} s or more; look "
            "whether its head is well, or give another --address"
        )
    if isinstance(error, _NOT_RAYS) and not isinstance(error, requests.exceptions.InvalidURL):
        return (
            f"what answers at {address} is not Ray's dashboard ({_reason(error)}); give the "
            "--address of one, such as http://HEAD:8265"
        )
    if isinstance(error, RuntimeError):
        return f"the cluster at {address} does not do what it was asked: {_reason(error)}"
    return (
        f"no Ray dashboard takes jobs at {address}: {_reason(error)}; start one with "
        "'ray start --head' or give --address"
    )


def _reason(error: Exception) -> str:
    """Return one line of what Ray said: the last one where it sent a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" .")]
    if not lines:
        return type(error).__name__
    if isinstance(error, KeyError):
        return f"it lacks {lines[0]}"
    return (lines[-1] if "Traceback" in lines[0] else lines[0])[:300]


def _place(address: str) -> tuple[str, int]:
    """Return host and port of a dashboard's address.

    Raises:
        AccessError: It is not the address of one.
    """
    try:
        parts = urlsplit(address)
        usual = _PORTS.get(parts.scheme)
        host, port = parts.hostname, parts.port or usual
    except ValueError:  # a port that is no number, a bracket that is not closed
        host = port = usual = None
    if host is None or port is None or usual is None:
        raise AccessError(
            f"--address: expected the address of a Ray dashboard, such as http://HEAD:8265, got "
            f"{address!r}"
        )
    return (f"[{host}]" if ":" in host else host), port

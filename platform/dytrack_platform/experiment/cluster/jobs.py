"""Send a command to a Ray cluster as a job, follow it, and tell its true end.

What became of a job only the Jobs API knows: a log that ends means nothing, for the connection may
be cut, the head restarted or the laptop closed. A job's id follows from what it runs, so that the
same command sent again finds the job that is already there.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from dytrack_platform.experiment.cluster import session  # sets Ray's environment first

import aiohttp  # isort: skip
from ray.exceptions import AuthenticationError  # isort: skip
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient  # isort: skip

from dytrack_platform.errors import AccessError, ClusterError, ConfigurationError
from dytrack_platform.experiment.cluster import shipment
from dytrack_platform.experiment.cluster.lasting import require_lasting
from dytrack_platform.storage.job import SECRETS

_AGENT_WAIT_S = 60.0
_PATIENCE_S = 600.0
"""How long a cluster may be out of reach while its job is followed."""
_STOP_WAIT_S = 40
"""Seconds between SIGTERM and SIGKILL: a training writes its checkpoint in them."""
_LOST = (aiohttp.ClientError, ConnectionError, RuntimeError, TimeoutError, OSError)
"""What the client raises where the cluster does not answer."""
_META = "dytrack"

# Names of uploaded packages say nothing that a user can act on.
logging.getLogger("ray.dashboard").setLevel(logging.WARNING)
logging.getLogger("ray._private.runtime_env").setLevel(logging.WARNING)

_FORWARDED = (
    *("MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION"),
    *("AWS_REGION", "AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION"),
)
"""Settings of this shell that the job needs too; secrets belong to the cluster, not to a job."""
_SECRET_WORDS = ("SECRET", "TOKEN", "PASSWORD", "PASSWD", "CREDENTIAL", "API_KEY", "ACCESS_KEY")
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRequest:
    """A command for a cluster."""

    command: tuple[str, ...]
    """The words after ``dytrack``."""
    address: str
    """Of the dashboard, such as ``http://127.0.0.1:8265``."""
    name: str | None = None
    """The job's id; made of the command where left out."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """More variables for the job."""
    secrets: tuple[str, ...] = ()
    """Names of variables that the node of the command must have."""
    cpus: float | None = None
    """CPUs to reserve for the command itself, beside what it asks for."""
    gpus: float | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    """Custom resources of the node that the command runs on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A job of a cluster."""

    id: str
    address: str
    attached: bool = False
    """It was there already."""

    @property
    def link(self) -> str:
        """Its page on the dashboard."""
        return f"{self.address.rstrip('/')}/#/jobs/{self.id}"


def submit(request: JobRequest, say: Say) -> Job:
    """Send a command, or find the job that runs it already.

    Args:
        request: What to run, and where.
        say: Called with what travels.

    Raises:
        ConfigurationError: A result would be lost with the job, a secret stands in the
            environment, or another command has the job's name.
        ClusterError: The cluster does not answer, or refuses the job.
    """
    environment = _environment(request)
    require_lasting(request, environment)
    client = connect(request.address)
    with TemporaryDirectory(prefix="dytrack-job-") as name:
        packed = shipment.pack(request.command, session.packages(), Path(name))
        wanted = request.name or f"{request.command[0]}-{packed.digest}"
        found = _running(client, wanted, packed.digest)
        if found is not None:
            return Job(id=found, address=request.address, attached=True)
        say(f"{packed.sentence()}\n")
        with _refusals(request.address):
            job = _send(
                client,
                submission_id=_unused(client, wanted),
                entrypoint=packed.entrypoint,
                metadata={_META: packed.digest, "command": " ".join(request.command)[:200]},
                runtime_env={
                    "py_modules": [str(package) for package in packed.packages],
                    "working_dir": name,
                    "env_vars": environment,
                },
                entrypoint_num_cpus=request.cpus,
                entrypoint_num_gpus=request.gpus,
                entrypoint_resources=dict(request.resources) or None,
            )
    return Job(id=job, address=request.address)


def follow(job: Job, say: Say) -> int:
    """Stream a job's log until the Jobs API says that it has ended.

    Args:
        job: The job.
        say: Called with each piece of the log.

    Returns:
        The exit code of the command; 128 and the signal's number where a signal ended it.

    Raises:
        ClusterError: There is no such job, it never ran, its cluster was started anew, or the
            cluster stays out of reach.
    """
    client = connect(job.address)
    with contextlib.suppress(_Unreachable):
        _is_terminal(client, job)  # a job that was never there is another matter than a lost one
    log = _Log(say)
    silent_since: float | None = None
    while True:
        with contextlib.suppress(*_LOST, AuthenticationError):  # a cut stream is no end
            asyncio.run(log.stream(client, job.id))
        try:
            ended = _is_terminal(client, job)
            silent_since = None
        except _Unknown as error:
            raise ClusterError(
                f"job {job.id} ended with its cluster: another one answers at {job.address} and "
                "does not know it; what was stored is whole, and the same command, submitted "
                "again, goes on from there"
            ) from error
        except _Unreachable as error:
            now = time.monotonic()
            if silent_since is None:
                say(
                    f"\n{job.address} does not answer; unless its head is lost the job goes on, "
                    "and so does the waiting\n"
                )
            silent_since = silent_since or now
            if now - silent_since > _PATIENCE_S:
                raise ClusterError(
                    f"{job.address} has not answered for {_PATIENCE_S:g} s; the job may go on: "
                    f"dytrack jobs attach {job.id} --address {job.address}"
                ) from error
            ended = False
        if ended:
            return exit_code(client, job)
        time.sleep(1.0)


def stop(job: Job, say: Say) -> None:
    """Tell a job to end, so that a training leaves a checkpoint; killed after a while.

    Raises:
        AccessError: There is no such job, or the cluster does not answer.
    """
    client = connect(job.address)
    if _is_terminal(client, job):
        say(f"job {job.id} has ended already\n")
        return
    with _refusals(job.address):
        client.stop_job(job.id)
    deadline = time.monotonic() + _STOP_WAIT_S + 20
    while not _is_terminal(client, job):
        if time.monotonic() > deadline:
            raise ClusterError(f"job {job.id} does not end; look at {job.link}")
        time.sleep(0.5)


def listed(address: str) -> list[JobDetails]:
    """Return the cluster's jobs, the newest first.

    Raises:
        AccessError: The cluster does not answer.
    """
    client = connect(address)
    with _refusals(address):
        found: list[JobDetails] = [job for job in client.list_jobs() if job.submission_id]
    return sorted(found, key=lambda job: job.start_time or 0, reverse=True)


def log(job: Job) -> str:
    """Return a job's log so far.

    Raises:
        AccessError: There is no such job, or the cluster does not answer.
    """
    client = connect(job.address)
    _is_terminal(client, job)
    with _refusals(job.address):
        return str(client.get_job_logs(job.id))


def exit_code(client: JobSubmissionClient, job: Job) -> int:
    """Return the exit code of a job that has ended.

    Raises:
        ClusterError: Its command never ran, or the cluster lost it.
    """
    info = client.get_job_info(job.id)
    if info.driver_exit_code is not None:
        code = int(info.driver_exit_code)
        return 128 - code if code < 0 else code
    if info.status == JobStatus.SUCCEEDED:
        return 0
    if info.status == JobStatus.STOPPED:
        return 143
    raise ClusterError(f"job {job.id} ended as {info.status}: {info.message}")


def connect(address: str) -> JobSubmissionClient:
    """Reach a cluster's dashboard.

    Raises:
        AccessError: Nobody answers, the token is wrong, or it is no Ray.
    """
    session.require_answer(urlsplit(address).netloc or address, f"--address {address}", "8265")
    with _refusals(address):
        return JobSubmissionClient(address)


class _Unreachable(Exception):
    """The cluster does not answer just now."""


class _Unknown(AccessError):
    """The cluster answers, and has no such job."""


def _is_terminal(client: JobSubmissionClient, job: Job) -> bool:
    try:
        return bool(client.get_job_status(job.id).is_terminal())
    except AuthenticationError as error:
        raise _token_asked(job.address) from error
    except _LOST as error:
        if "does not exist" in str(error):
            raise _Unknown(
                f"job {job.id}: {job.address} knows no such job; dytrack jobs list shows them"
            ) from error
        raise _Unreachable from error


@dataclass(slots=True)
class _Log:
    """A log that is said once, however often its stream is cut: each one begins at its start."""

    say: Say
    said: int = 0
    """Characters in all."""

    async def stream(self, client: JobSubmissionClient, job: str) -> None:
        """Say what of the log was not said before, until the stream ends."""
        seen = 0
        async for lines in client.tail_job_logs(job):
            new = lines[max(0, self.said - seen) :]
            seen += len(lines)
            if new:
                self.say(new)
                self.said = seen


def _send(client: JobSubmissionClient, **request: Any) -> str:  # noqa: ANN401  (Ray's own arguments)
    """Submit; a cluster that has just started answers before its agent takes jobs."""
    deadline = time.monotonic() + _AGENT_WAIT_S
    while True:
        try:
            return str(client.submit_job(**request))
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(1.0)


def _running(client: JobSubmissionClient, name: str, digest: str) -> str | None:
    """Find a job of this name, or of one that it was given later, that has not ended."""
    with _refusals("the cluster"):
        jobs = client.list_jobs()
    for job in jobs:
        known = str(job.submission_id or "")
        if known != name and known.rpartition(".")[0] != name:
            continue
        if job.status.is_terminal():
            continue
        about = job.metadata or {}
        if about.get(_META) != digest:
            raise ConfigurationError(
                f"name: a job {known} runs another command ({about.get('command')}); "
                "choose another --name, or end it with dytrack jobs stop"
            )
        return known
    return None


def _unused(client: JobSubmissionClient, name: str) -> str:
    """Number a name that an earlier job had: Ray remembers each for ever."""
    taken = {str(job.submission_id) for job in client.list_jobs()}
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}.{number}"
    return free


def _environment(request: JobRequest) -> dict[str, str]:
    """Return the job's variables; everybody who sees the dashboard sees them.

    Raises:
        ConfigurationError: One is a secret.
    """
    for name in request.environment:
        if any(word in name.upper() for word in _SECRET_WORDS):
            raise ConfigurationError(
                f"--env {name}: a job's record shows its environment to everybody; set it on the "
                f"cluster and give --secret {name}"
            )
    settings = {name: os.environ[name] for name in _FORWARDED if name in os.environ}
    settings |= dict(request.environment)
    for name, value in settings.items():
        if "://" in value and urlsplit(value).password:
            raise ConfigurationError(
                f"{name}: holds a password, and a job's record shows its environment to everybody; "
                "set it on the cluster and give its name with --secret"
            )
    settings.setdefault("RAY_JOB_STOP_WAIT_TIME_S", str(_STOP_WAIT_S))
    if request.secrets:
        settings[SECRETS] = ",".join(request.secrets)
    return settings


def _token_asked(address: str) -> AccessError:
    return AccessError(
        f"the cluster at {address} asks for its token: put it into ~/.ray/auth_token, or set "
        "RAY_AUTH_TOKEN"
    )


@contextlib.contextmanager
def _refusals(address: str) -> Any:  # noqa: ANN401  (a generator's type says less than its use)
    """Turn what Ray's client raises into a sentence."""
    try:
        yield
    except AuthenticationError as error:
        raise _token_asked(address) from error
    except _LOST as error:
        raise AccessError(
            f"no Ray dashboard takes jobs at {address}: {str(error).splitlines()[0]}; start one "
            "with 'ray start --head' or give --address"
        ) from error

"""Send a command to a Ray cluster as a job, follow it, and tell its true end.

What became of a job only the Jobs API knows: a log that ends means nothing, for the connection may
be cut, the head restarted or the laptop closed. A job's id follows from the run that it makes, or
from its command where it makes none, so that the same command sent again finds the job that is
already there.
"""

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dytrack_platform.experiment.cluster import session  # sets Ray's environment first

from ray.job_submission import JobDetails, JobStatus  # isort: skip

from dytrack_platform.config import ExperimentConfig, load, parse_override
from dytrack_platform.errors import ClusterError, ConfigurationError
from dytrack_platform.experiment.cluster import client as dashboard
from dytrack_platform.experiment.cluster import job_settings, lasting, shipment
from dytrack_platform.experiment.cluster.client import Client, UnknownJob, Unreachable, connect
from dytrack_platform.experiment.cluster.job_log import JobLog, Stream

_AGENT_WAIT_S = 60.0
_PATIENCE_S = 600.0
"""How long a cluster may be out of reach while its job is followed."""
_ASK_S = 2.0
"""Seconds between two questions whether a job has ended, while its log streams."""
_SILENCE_S = 60.0
"""Seconds after which a silent log is opened anew: a connection that died says nothing either."""
_REST_S = 5.0
"""Seconds that a log may be silent behind its job's end before it is fetched as a whole."""
_STOP_WAIT_S = 40
"""Seconds between SIGTERM and SIGKILL, at least."""
_AFTER_GRACE_S = 20
"""Seconds that a command needs behind its recipe's ``train.grace_s``, to end its record."""
_TRIES = 5
"""Times that a job is sent whose id others take meanwhile."""
_DIGEST, _NAME, _COMMAND, _STOPS = "dytrack", "dytrack_name", "command", "stop_wait_s"
"""What a job's metadata hold: its digest, the name before its number, its words, its patience."""
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRequest:
    """A command for a cluster."""

    command: tuple[str, ...]
    """The words after ``dytrack``."""
    address: str
    """Of the dashboard, such as ``http://127.0.0.1:8265``."""
    name: str | None = None
    """The job's id; made of the run's name, or of the command, where left out."""
    recipe: Path | None = None
    """The recipe's file, where the command makes a run of one and it lies here."""
    changes: tuple[str, ...] = ()
    """Its changes, each as ``KEY=VALUE``."""
    root: str | None = None
    """Where the command finds a dataset."""
    records: bool = True
    """Whether the command writes to MLflow if it is one that does."""
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
        ConfigurationError: A result would be lost with the job, a secret stands in the command or
            the environment, or another command has the job's name.
        AccessError: The cluster does not answer, or refuses the job.
        ClusterError: The cluster says that the job exists, and that it does not.
    """
    job_settings.require_no_key(request.command)
    config = None
    if request.recipe is not None:
        config = load(request.recipe, dict(map(parse_override, request.changes)))
    environment = job_settings.environment(
        request.environment, request.secrets, _stop_wait_s(config)
    )
    lasting.require_lasting(request, config, environment)
    client = connect(request.address)
    store = lasting.one_machines_store(environment)
    if store is not None and lasting.records(request):
        here = dashboard.same_machine(client, request.address)
        lasting.require_this_machine(store, request.address, here=here)
    with TemporaryDirectory(prefix="dytrack-job-") as folder:
        packed = shipment.pack(request.command, session.packages(), Path(folder))
        metadata = {
            _DIGEST: packed.digest,
            _NAME: request.name or _name(request, config, packed.digest),
            _COMMAND: " ".join(request.command)[:200],
            _STOPS: environment[job_settings.STOP_WAIT],
        }
        sent = {
            "entrypoint": packed.entrypoint,
            "metadata": metadata,
            "runtime_env": {
                "py_modules": [str(package) for package in packed.packages],
                "working_dir": folder,
                "env_vars": environment,
            },
            "entrypoint_num_cpus": request.cpus,
            "entrypoint_num_gpus": request.gpus,
            "entrypoint_resources": dict(request.resources) or None,
        }
        for _ in range(_TRIES):
            with dashboard.refusals(request.address):
                known = [job for job in client.list_jobs() if job.submission_id]
            found = _running(known, metadata)
            if found is not None:
                return Job(id=found, address=request.address, attached=True)
            job = _unused(known, metadata[_NAME])
            if _send(client, request.address, submission_id=job, **sent):
                say(f"{packed.sentence()}\n")
                return Job(id=job, address=request.address)
            # Somebody sent a job of this id meanwhile: it is looked at like any other.
    raise ClusterError(
        f"job {job}: {request.address} says that it exists, and does not list it; choose another "
        "--name"
    )


def follow(job: Job, say: Say) -> int:
    """Stream a job's log until the Jobs API says that it has ended.

    Args:
        job: The job.
        say: Called with each piece of the log.

    Returns:
        The exit code of the command; 128 and the signal's number where a signal ended it.

    Raises:
        ClusterError: It never ran, its cluster was started anew, or the cluster stays out of reach.
        AccessError: There is no such job, or the cluster does not answer at the start.
    """
    client = connect(job.address)
    with contextlib.suppress(Unreachable):
        # A job that was never there is another matter than a lost one.
        dashboard.details(client, job.address, job.id)
    log = JobLog(client, job.id, say)
    watch = _Watch(client, job, say)
    while True:
        with log.streamed() as stream:
            ended = _wait(watch, stream)
        if ended is not None:
            break
        time.sleep(1.0)  # a cut stream is no end
    if not stream.whole:
        with contextlib.suppress(Unreachable, UnknownJob), dashboard.refusals(job.address, job.id):
            log.take(str(client.get_job_logs(job.id)), 0)
    return exit_code(ended, job)


def stop(job: Job, say: Say) -> None:
    """Tell a job to end, so that a training leaves a checkpoint; killed after a while.

    Raises:
        AccessError: There is no such job, or the cluster does not answer.
        ClusterError: It does not end.
    """
    client = connect(job.address)
    info = dashboard.details(client, job.address, job.id)
    if info.status.is_terminal():
        say(f"job {job.id} has ended already\n")
        return
    with dashboard.refusals(job.address, job.id):
        client.stop_job(job.id)
    given = (info.metadata or {}).get(_STOPS, "")
    deadline = time.monotonic() + (int(given) if given.isdecimal() else _STOP_WAIT_S) + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(Unreachable):
            if dashboard.details(client, job.address, job.id).status.is_terminal():
                return
        time.sleep(0.5)
    raise ClusterError(f"job {job.id} does not end; look at {job.link}")


def listed(address: str) -> list[JobDetails]:
    """Return the cluster's jobs, the newest first.

    Raises:
        AccessError: The cluster does not answer.
    """
    client = connect(address)
    with dashboard.refusals(address):
        found: list[JobDetails] = [job for job in client.list_jobs() if job.submission_id]
    return sorted(found, key=lambda job: job.start_time or 0, reverse=True)


def log(job: Job) -> str:
    """Return a job's log so far.

    Raises:
        AccessError: There is no such job, or the cluster does not answer.
    """
    client = connect(job.address)
    with dashboard.refusals(job.address, job.id):
        return str(client.get_job_logs(job.id))


def exit_code(info: JobDetails, job: Job) -> int:
    """Return the exit code of a job that has ended.

    Raises:
        ClusterError: Its command never ran, or the cluster lost it.
    """
    if info.driver_exit_code is not None:
        code = int(info.driver_exit_code)
        return 128 - code if code < 0 else code
    if info.status == JobStatus.SUCCEEDED:
        return 0
    if info.status == JobStatus.STOPPED:
        return 143
    raise ClusterError(f"job {job.id} ended as {info.status}: {info.message}")


@dataclass(slots=True)
class _Watch:
    """Asks what became of a job, with patience for a cluster that does not answer."""

    client: Client
    job: Job
    say: Say
    silent_since: float | None = None

    def ended(self) -> JobDetails | None:
        """Return what became of the job; None where it goes on or nobody answers.

        Raises:
            ClusterError: The cluster was started anew, or is out of reach for too long.
        """
        job = self.job
        try:
            info = dashboard.details(self.client, job.address, job.id)
        except UnknownJob as error:
            raise ClusterError(
                f"job {job.id} ended with its cluster: another one answers at {job.address} and "
                "does not know it; what was stored is whole, and the same command, submitted "
                "again, goes on from there"
            ) from error
        except Unreachable as error:
            self._wait_on(error)
            return None
        self.silent_since = None
        return info if info.status.is_terminal() else None

    def _wait_on(self, error: Unreachable) -> None:
        job, now = self.job, time.monotonic()
        if self.silent_since is None:
            self.silent_since = now
            self.say(
                f"\n{job.address} does not answer; unless its head is lost the job goes on, "
                "and so does the waiting\n"
            )
        if now - self.silent_since > _PATIENCE_S:
            raise ClusterError(
                f"{job.address} has not answered for {_PATIENCE_S:g} s; the job may go on: "
                f"dytrack jobs attach {job.id} --address {job.address}"
            ) from error


def _wait(watch: _Watch, stream: Stream) -> JobDetails | None:
    """Wait for a job's end beside its log; None where the log has to be opened anew."""
    while True:
        over = stream.wait(_ASK_S)
        ended = watch.ended()
        if ended is not None:
            stream.finish(_REST_S)
            return ended
        if over or time.monotonic() - stream.heard > _SILENCE_S:
            return None


def _send(client: Client, address: str, **request: Any) -> bool:  # noqa: ANN401  (Ray's own)
    """Submit; a cluster that has just started answers before its agent takes jobs.

    Returns:
        Whether it was taken; it is not where another job has its id meanwhile.
    """
    deadline = time.monotonic() + _AGENT_WAIT_S
    with dashboard.refusals(address):
        while True:
            try:
                client.submit_job(**request)
            except RuntimeError as error:
                if dashboard.is_taken(error):
                    return False
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise
            else:
                return True
            time.sleep(1.0)


def _name(request: JobRequest, config: ExperimentConfig | None, digest: str) -> str:
    """Make a job's id: of the run that its command makes, or of all that tells two jobs apart."""
    return f"{request.command[0]}-{digest if config is None else config.name}"


def _stop_wait_s(config: ExperimentConfig | None) -> int:
    """Return the seconds that a command may take to end once it is told to."""
    grace_s = 0.0 if config is None else config.train.grace_s
    return max(_STOP_WAIT_S, math.ceil(grace_s) + _AFTER_GRACE_S)


def _running(jobs: list[JobDetails], ours: Mapping[str, str]) -> str | None:
    """Find a job of this name, or of one that it was given later, that has not ended.

    Raises:
        ConfigurationError: It runs something else.
    """
    for job in jobs:
        about = job.metadata or {}
        if ours[_NAME] not in (job.submission_id, about.get(_NAME)) or job.status.is_terminal():
            continue
        if about.get(_DIGEST) != ours[_DIGEST]:
            other = f"another command ({about.get(_COMMAND)})"
            if about.get(_COMMAND) == ours[_COMMAND]:
                other = "the same command with other content of its files"
            raise ConfigurationError(
                f"name: a job {job.submission_id} runs {other}; choose another --name (and, for "
                "another run of a recipe, --set name=NAME), or end it with dytrack jobs stop "
                f"{job.submission_id}"
            )
        return str(job.submission_id)
    return None


def _unused(jobs: list[JobDetails], name: str) -> str:
    """Number a name that an earlier job had: Ray remembers each for ever."""
    taken = {job.submission_id for job in jobs}
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}.{number}"
    return free

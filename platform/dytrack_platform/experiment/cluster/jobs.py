"""Send a command to a Ray cluster as a job: ship the packages, stream the log, give its end."""

import asyncio
import logging
import os
import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dytrack_platform.experiment.cluster import session  # sets Ray's environment first

from ray.exceptions import AuthenticationError  # isort: skip
from ray.job_submission import JobStatus, JobSubmissionClient  # isort: skip

from dytrack_platform.errors import ClusterError

_AGENT_WAIT_S = 60.0

# Names of uploaded packages say nothing that a user can act on.
logging.getLogger("ray.dashboard").setLevel(logging.WARNING)
logging.getLogger("ray._private.runtime_env").setLevel(logging.WARNING)

_FORWARDED = ("MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION")
"""Settings of this shell that the job needs too; secrets belong to the cluster, not to a job."""


def submit(
    command: Sequence[str],
    *,
    address: str,
    say: Callable[[str], None],
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run ``dytrack COMMAND …`` on a cluster and wait for it.

    The three packages travel as ``py_modules``, so that the cluster's image needs only their
    dependencies. Recipe files named in the command travel too.

    Args:
        command: The words after ``dytrack``.
        address: Address of the dashboard, such as ``http://127.0.0.1:8265``.
        say: Called with each piece of the job's log.
        environment: More environment variables for the job.

    Returns:
        The exit code of the command.

    Raises:
        ClusterError: The cluster does not answer, or lost the job.
    """
    forwarded = {name: os.environ[name] for name in _FORWARDED if name in os.environ}
    with TemporaryDirectory(prefix="dytrack-job-") as name:
        words = [_carry(word, Path(name)) for word in command]
        try:
            client = JobSubmissionClient(address)
            job = _send(
                client,
                # The Jobs API takes one string for a shell: every word is quoted.
                shlex.join(["python", "-m", "dytrack_pipelines.cli", *words]),
                {
                    "py_modules": session.packages(),
                    "working_dir": name,
                    "env_vars": {**forwarded, **(environment or {})},
                },
            )
        except AuthenticationError as error:
            raise ClusterError(
                f"the cluster at {address} asks for its token: put it into ~/.ray/auth_token, or "
                "set RAY_AUTH_TOKEN"
            ) from error
        except (ConnectionError, RuntimeError) as error:
            raise ClusterError(
                f"no Ray dashboard takes jobs at {address}: {str(error).splitlines()[0]}; start "
                "one with 'ray start --head' or give --address"
            ) from error
    say(f"job {job} on {address}\n")
    try:
        asyncio.run(_follow(client, job, say))
    except KeyboardInterrupt:
        client.stop_job(job)
        raise
    return _exit_code(client, job)


def _send(client: JobSubmissionClient, entrypoint: str, runtime_env: dict[str, Any]) -> str:
    """Submit; a cluster that has just started answers before its agent takes jobs."""
    deadline = time.monotonic() + _AGENT_WAIT_S
    while True:
        try:
            return str(client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env))
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(1.0)


def _carry(word: str, folder: Path) -> str:
    """Copy a recipe into the job's folder and name it there; other words stay as they are."""
    path = Path(word)
    if path.suffix not in {".yaml", ".yml"} or not path.is_file():
        return word
    shutil.copy(path, folder / path.name)
    return path.name


async def _follow(client: JobSubmissionClient, job: str, say: Callable[[str], None]) -> None:
    async for lines in client.tail_job_logs(job):
        say(lines)


def _exit_code(client: JobSubmissionClient, job: str) -> int:
    info = client.get_job_info(job)
    if info.driver_exit_code is not None:
        return int(info.driver_exit_code)
    if info.status == JobStatus.SUCCEEDED:
        return 0
    raise ClusterError(f"job {job} ended as {info.status}: {info.message}")

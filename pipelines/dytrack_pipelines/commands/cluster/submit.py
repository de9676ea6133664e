"""Send any command to a Ray cluster: ``dytrack submit train RECIPE``.

The cluster's image needs the dependencies only; the three packages travel with the job, and so do
recipes named in the command. The log streams here, and the exit code is the command's own. Sent
again while it runs, the same command is not started twice: it is followed again.
"""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import Address

if TYPE_CHECKING:
    from dytrack_platform.experiment.cluster.jobs import Job


def submit(
    command: Annotated[list[str], typer.Argument(help="The command and its options.")],
    address: Address = "http://127.0.0.1:8265",
    name: Annotated[
        str | None, typer.Option(help="Name of the job; made of the command where left out.")
    ] = None,
    env: Annotated[
        list[str], typer.Option(help="Environment variable for the job: --env NAME=VALUE.")
    ] = [],  # noqa: B006  (typer copies it)
    secret: Annotated[
        list[str], typer.Option(help="Name of a variable that the cluster's nodes must have.")
    ] = [],  # noqa: B006
    cpus: Annotated[
        float | None, typer.Option(min=0, help="CPUs to reserve for the command itself.")
    ] = None,
    gpus: Annotated[
        float | None, typer.Option(min=0, help="GPUs to reserve for the command itself.")
    ] = None,
    resources: Annotated[
        list[str], typer.Option(help="Custom resource that its node must have: NAME=AMOUNT.")
    ] = [],  # noqa: B006
    wait: Annotated[
        bool, typer.Option("--wait/--detach", help="Follow the job, or leave it at once.")
    ] = True,
) -> None:
    """Run a command on a Ray cluster as a job, stream its log, and end as it ends."""
    from dytrack_platform.experiment.cluster import jobs

    request = jobs.JobRequest(
        command=tuple(command),
        address=address,
        name=name,
        environment=dict(_pair(text, "--env") for text in env),
        secrets=tuple(secret),
        cpus=cpus,
        gpus=gpus,
        resources={key: _amount(value) for key, value in map(_resource, resources)},
    )
    # An address given here is the cluster's; the job itself finds its own.
    os.environ.pop("RAY_ADDRESS", None)
    job = jobs.submit(request, screen.raw)
    screen.say(f"job {job.id}{' runs already' if job.attached else ''}: {job.link}")
    if not wait:
        screen.say(f"follow it with: dytrack jobs attach {job.id} --address {address}")
        return
    raise typer.Exit(stay(job))


def stay(job: "Job") -> int:
    """Follow a job to its end; Ctrl-C asks whether it shall stop too."""
    from dytrack_platform.experiment.cluster import jobs

    while True:
        try:
            return jobs.follow(job, screen.raw)
        except KeyboardInterrupt:
            answer = _asked()
        if answer == "stop":
            screen.say(f"stopping {job.id}; a training writes a checkpoint first")
            jobs.stop(job, screen.raw)
            return 130
        if answer == "leave":
            screen.say(f"job {job.id} goes on: dytrack jobs attach {job.id} follows it again")
            return 130


def _asked() -> str:
    """Ask what Ctrl-C means; where nobody can answer, the job goes on."""
    if not sys.stdin.isatty():
        return "leave"
    try:
        said = input("\nstop the job (s), leave it running (l), or go on watching (w)? ")
    except (KeyboardInterrupt, EOFError):
        return "leave"
    return {"s": "stop", "l": "leave"}.get(said.strip().lower()[:1], "watch")


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"expected NAME=VALUE, got {text!r}", param_hint=option)
    return name, value


def _resource(text: str) -> tuple[str, str]:
    return _pair(text, "--resources")


def _amount(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"expected a number, got {text!r}", param_hint="--resources"
        ) from error

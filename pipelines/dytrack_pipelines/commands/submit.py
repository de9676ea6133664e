"""Send any command to a Ray cluster: ``dytrack submit train RECIPE``.

The cluster's image needs the dependencies only; the three packages travel with the job, and so do
recipe files named in the command. The log streams here, and the exit code is the command's own.
"""

import os
from typing import Annotated

import typer

from dytrack_pipelines.terminal import screen


def submit(
    command: Annotated[list[str], typer.Argument(help="The command and its options.")],
    address: Annotated[
        str,
        typer.Option(help="Address of the cluster's dashboard.", envvar="RAY_API_SERVER_ADDRESS"),
    ] = "http://127.0.0.1:8265",
    env: Annotated[
        list[str], typer.Option(help="Environment variable for the job: --env NAME=VALUE.")
    ] = [],  # noqa: B006  (typer copies it)
) -> None:
    """Run a command on a Ray cluster as a job, stream its log, and end as it ends."""
    from dytrack_platform.experiment.cluster.jobs import submit as run

    # Read the environment for the job.
    environment = dict(_pair(text) for text in env)
    # An address given here is the cluster's; the job itself finds its own.
    os.environ.pop("RAY_ADDRESS", None)
    # Send it, follow the log, end with its exit code.
    code = run(command, address=address, say=screen.raw, environment=environment)
    raise typer.Exit(code)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"expected NAME=VALUE, got {text!r}", param_hint="--env")
    return name, value

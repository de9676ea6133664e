"""Send any command to a Ray cluster: ``dytrack submit train RECIPE``.

The cluster's image needs the dependencies only; the three packages travel with the job, and so do
recipes named in the command. The log streams here, and the exit code is the command's own. Sent
again while it runs, the same command is not started twice: it is followed again. A training's or
search's job is named after its run, and another recipe of that name is refused while it runs.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dytrack_pipelines import recipes
from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import Address

if TYPE_CHECKING:
    from dytrack_platform.experiment.cluster.jobs import Job


def submit(
    context: typer.Context,
    command: Annotated[list[str], typer.Argument(help="The command and its options.")],
    address: Address = "http://127.0.0.1:8265",
    name: Annotated[
        str | None,
        typer.Option(help="Name of the job; its run's, or made of the command, if none."),
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

    said = _said(context, command)
    request = jobs.JobRequest(
        command=tuple(command),
        address=address,
        name=name,
        recipe=_recipe(command[0], said),
        changes=tuple(said.get("overrides") or ()),
        root=said.get("root"),
        records=said.get("mlflow", True) and not said.get("local") and not said.get("dry_run"),
        environment=dict(_pair(text, "--env") for text in env),
        secrets=tuple(secret),
        cpus=cpus,
        gpus=gpus,
        resources={key: _amount(value) for key, value in map(_resource, resources)},
    )
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
            screen.say(
                f"job {job.id} goes on: dytrack jobs attach {job.id} --address {job.address} "
                "follows it again"
            )
            return 130


def _said(context: typer.Context, words: Sequence[str]) -> dict[str, Any]:
    """Read a command's arguments and options by name, without judging them: the job does that."""
    known: dict[str, Any] = getattr(context.find_root().command, "commands", {})
    command = known.get(words[0])
    if command is None or hasattr(command, "commands"):
        return {}
    rest = [word for word in words[1:] if word != "--debug"]
    with command.make_context(words[0], rest, resilient_parsing=True) as read:
        return dict(read.params)


def _recipe(command: str, said: dict[str, Any]) -> Path | None:
    """Return the recipe's file of a command that makes a run of it, if the file is here.

    Raises:
        ConfigurationError: The recipe is no file, and none that comes with dytrack.
    """
    name = said.get("recipe")
    if command not in ("train", "search") or name in (None, "report") or said.get("dry_run"):
        return None
    path = recipes.find(name)
    return path if path.is_file() else None


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

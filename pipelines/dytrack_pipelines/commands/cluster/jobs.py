"""Look after jobs on a Ray cluster.

    dytrack jobs list
    dytrack jobs attach train-base-full
    dytrack jobs stop train-base-full

A job that is told to stop gets SIGTERM first: a training writes a checkpoint, from which the same
command goes on.
"""

import datetime
from typing import Annotated

import typer

from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import Address, AsJson

jobs_app = typer.Typer(help="List, follow and stop jobs on a Ray cluster.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The job's id, as dytrack jobs list shows it.")]
_DASHBOARD = "http://127.0.0.1:8265"


@jobs_app.command("list")
def list_jobs(address: Address = _DASHBOARD, as_json: AsJson = False) -> None:
    """Show the cluster's jobs, the newest first."""
    from dytrack_platform.experiment.cluster import jobs

    found = [
        {
            "job": str(job.submission_id),
            "state": str(job.status.value),
            "exit_code": job.driver_exit_code,
            "started": _clock(job.start_time),
            "command": (job.metadata or {}).get("command", job.entrypoint),
        }
        for job in jobs.listed(address)
    ]
    if as_json:
        screen.json(found)
        return
    rows = [["" if value is None else str(value) for value in job.values()] for job in found]
    screen.table(f"jobs at {address}", ["job", "state", "exit code", "started", ""], rows)


@jobs_app.command()
def attach(name: Name, address: Address = _DASHBOARD) -> None:
    """Follow a job again, from the start of its log; the exit code is the command's own."""
    from dytrack_pipelines.commands.cluster.submit import stay
    from dytrack_platform.experiment.cluster.jobs import Job

    raise typer.Exit(stay(Job(id=name, address=address)))


@jobs_app.command()
def logs(name: Name, address: Address = _DASHBOARD) -> None:
    """Print a job's log so far."""
    from dytrack_platform.experiment.cluster import jobs

    screen.raw(jobs.log(jobs.Job(id=name, address=address)))


@jobs_app.command()
def stop(name: Name, address: Address = _DASHBOARD) -> None:
    """Stop a job; a training writes a checkpoint first."""
    from dytrack_platform.experiment.cluster import jobs

    jobs.stop(jobs.Job(id=name, address=address), screen.raw)
    screen.say(f"job {name} has ended")


def _clock(milliseconds: int | None) -> str:
    if milliseconds is None:
        return ""
    local = datetime.datetime.fromtimestamp(milliseconds / 1e3).astimezone()
    return f"{local:%Y-%m-%d %H:%M:%S%z}"

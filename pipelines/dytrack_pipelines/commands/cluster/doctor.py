"""Find out what is wrong before it costs a day: ``dytrack doctor``.

    dytrack doctor
    RAY_ADDRESS=head:6379 dytrack doctor --storage s3://bucket/runs --data /nfs/clips --json

Looks at this machine, at every node of the cluster of ``RAY_ADDRESS``, at the MLflow store and at
what is named. Takes at most 20 seconds. The exit code is 1 where something is wrong.
"""

import os
from typing import Annotated

import typer

from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import AsJson


def doctor(
    storage: Annotated[
        str | None, typer.Option(help="Folder or URL that runs would be written to.")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="Path that workers would read; repeatable.")
    ] = None,
    dashboard: Annotated[
        str | None,
        typer.Option(help="Address that jobs would be sent to.", envvar="RAY_API_SERVER_ADDRESS"),
    ] = None,
    gpus: Annotated[int, typer.Option(min=0, max=4096, help="GPUs that the work needs.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Check machine, cluster, storage and MLflow, and say how to cure what is wrong."""
    from dytrack_platform.experiment.doctor import examination
    from dytrack_platform.experiment.doctor.check import Question
    from dytrack_platform.experiment.runs import store

    checks = examination.examine(
        Question(
            ray_address=os.environ.get("RAY_ADDRESS"),
            dashboard=dashboard,
            mlflow_uri=store.uri(),
            storage=storage,
            data=tuple(data or ()),
            gpus=gpus,
        )
    )
    if as_json:
        screen.raw(examination.to_json(checks) + "\n")
    else:
        for check in checks:
            screen.say(f"{'ok   ' if check.ok else 'WRONG'} {check.check}: {check.detail}")
            if check.cure:
                screen.say(f"      {check.cure}")
    raise typer.Exit(int(not all(check.ok for check in checks)))

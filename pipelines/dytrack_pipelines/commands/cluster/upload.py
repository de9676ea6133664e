"""Deliver what MLflow lacks of a training: ``dytrack upload runs/NAME``.

Hardware: none. Time: seconds. A training writes its log to its own folder first; where MLflow did
not answer, the log waits there. A run whose command was killed is also ended here.
"""

from typing import Annotated

import typer

from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import AsJson


def upload(
    run: Annotated[str, typer.Argument(help="Folder of a training, as runs/NAME.")],
    as_json: AsJson = False,
) -> None:
    """Deliver to MLflow what it could not take while a training ran."""
    from dytrack_platform.experiment.train.train import upload_pending

    run_id = upload_pending(run)
    screen.say(f"{run}: MLflow has everything (run {run_id})")
    if as_json:
        screen.json({"folder": run, "run": run_id})

"""Register a tracker: ``dytrack publish RUN --name dytrack --alias champion``.

Takes seconds on any machine. The version carries the tracker's exits, operating points, costs and
scores, and ``models:/NAME@ALIAS`` names it from then on.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from dytrack_pipelines.terminal import screen


def publish(
    tracker: Annotated[str, typer.Argument(help="A tracker's or a training run's folder.")],
    name: Annotated[str, typer.Option(help="Name of the registered model.")] = "dytrack",
    alias: Annotated[
        str, typer.Option(help="Alias to move to this version; empty to move none.")
    ] = "champion",
    evaluation: Annotated[
        Path | None, typer.Option(help="Folder of an evaluation whose scores to keep with it.")
    ] = None,
) -> None:
    """Register a tracker in MLflow, with its operating points, under an alias."""
    from dytrack_platform.experiment.registry import registry
    from dytrack_platform.storage import files

    # Find the tracker, and the run it came from.
    folder = registry.find(tracker)
    record = files.read_json(str(folder.parent / "experiment.json")) or {}
    # Gather the scores that go with it.
    tags = scores(evaluation) if evaluation else {}
    # Register it and move the alias.
    version = registry.publish(
        folder, name, alias=alias or None, run_id=record.get("run_id"), tags=tags
    )
    screen.say(f"published {version.name} version {version.version}: {version.uri}")


def scores(evaluation: Path) -> dict[str, str]:
    """Read the scores of an evaluation as tags of a model version.

    Raises:
        DataError: The folder holds no summary.
    """
    from dytrack_platform.errors import DataError

    path = evaluation / "summary.json"
    if not path.is_file():
        raise DataError(f"{path}: no such file; give the folder that dytrack evaluate wrote")
    summary = json.loads(path.read_text())
    tags = {"evaluated_on": summary["dataset"], "protocol": summary["protocol"]}
    for point in summary["points"]:
        tags[f"success_auc.{point['name']}"] = f"{point['success_auc']:.4f}"
    return tags

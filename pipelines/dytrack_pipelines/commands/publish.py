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
    tracker: Annotated[
        str | None, typer.Argument(help="A tracker's or a training run's folder.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the registered model.")] = "dytrack",
    alias: Annotated[
        str, typer.Option(help="Alias to move to this version; empty to move none.")
    ] = "champion",
    evaluation: Annotated[
        Path | None, typer.Option(help="Folder of an evaluation whose scores to keep with it.")
    ] = None,
    from_search: Annotated[
        str | None, typer.Option(help="In place of a tracker: a search's run or folder.")
    ] = None,
    pick: Annotated[
        str | None, typer.Option(help='Of that search: "ms<=8, max auc"; the knee point if none.')
    ] = None,
) -> None:
    """Register a tracker in MLflow, with its operating points, under an alias."""
    from dytrack_platform.experiment.registry import registry
    from dytrack_platform.storage import files

    # Find the tracker, and the run it came from.
    if from_search is not None:
        from dytrack_platform.experiment.search.pick import tracker_of

        tracker = tracker_of(from_search, pick)
    if tracker is None:
        raise typer.BadParameter("give a tracker's folder, or --from-search RUN")
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

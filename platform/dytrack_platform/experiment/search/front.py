"""The Pareto front of a search: a figure, a page and the numbers, kept with the parent run."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dytrack_platform.evaluation.report.figures import pareto_figure, write_still
from dytrack_platform.evaluation.report.page import Section, table, write_page
from dytrack_platform.experiment.runs import tracking
from dytrack_platform.experiment.search.search import ACCURACY, COST, Searched, Trial
from dytrack_platform.storage.atomic import write_atomically


def keep_front(searched: Searched, best: Sequence[bool]) -> list[Path]:
    """Write ``front.png``, ``front.html`` and ``front.json``, and keep them in MLflow.

    Args:
        searched: The finished search.
        best: For each trial, whether it lies on the front.

    Returns:
        The files.

    Raises:
        StorageError: A file cannot be written.
    """
    folder = searched.folder
    files = [folder / name for name in ("front.png", "front.html", "front.json")]
    rows = [
        {**asdict(trial), "on_front": on_front}
        for trial, on_front in zip(searched.trials, best, strict=True)
    ]
    points = [_point(trial) for trial in searched.trials]
    write_still(files[0], points, [], costs=(COST,), accuracy=ACCURACY, kind="trials")
    _write_page(files[1], points, rows)
    write_atomically(files[2], json.dumps(rows, indent=2) + "\n")
    with tracking.run(folder.name, run_id=searched.run_id, kind="search") as run:
        for file in files:
            run.file(file)
        run.metrics({"trials": float(len(rows)), "on_front": float(sum(best))}, step=0)
    return files


def _point(trial: Trial) -> dict[str, Any]:
    exits = "-".join(str(depth) for depth in trial.changes.get("model.exits", ()))
    name = f"{exits} {trial.changes.get('model.recycling', '')}".strip() or trial.name
    return {"name": name, ACCURACY: trial.iou, COST: trial.gmacs}


def _write_page(path: Path, points: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    cells = [
        [row["name"], str(row["changes"]), f"{row['iou']:.4f}", f"{row['gmacs']:.4f}"]
        for row in sorted(rows, key=lambda row: (not row["on_front"], row["gmacs"]))
    ]
    figure = pareto_figure(points, [], COST, accuracy=ACCURACY, kind="trials")
    write_page(
        path,
        title=f"{path.parent.name}: accuracy and cost of {len(rows)} trials",
        lead="Mean IoU on validation pairs over the mean cost of a frame, at the balanced point.",
        sections=[
            Section(title="Pareto front", figures={"front": figure}),
            Section(
                title="Trials",
                body=table(["trial", "changes", "mean IoU", "GMACs"], cells, identifier="trials"),
                note="Those on the front first, cheap to dear.",
            ),
        ],
        data={"trials": rows},
    )

"""The Pareto front of a search: an image, a page and the numbers, kept with the parent run."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import plotly.graph_objects as go

from dytrack_platform.experiment.runs import tracking
from dytrack_platform.experiment.search.search import Searched, Trial


def keep_front(searched: Searched, best: Sequence[bool]) -> list[Path]:
    """Write ``front.png``, ``front.html`` and ``front.json``, and keep them in MLflow.

    Args:
        searched: The finished search.
        best: For each trial, whether it lies on the front.

    Returns:
        The files.
    """
    folder = searched.folder
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / name for name in ("front.png", "front.html", "front.json")]
    _image(searched.trials, best, files[0])
    _page(searched.trials, best, files[1])
    rows = [
        {**asdict(trial), "on_front": on_front}
        for trial, on_front in zip(searched.trials, best, strict=True)
    ]
    files[2].write_text(json.dumps(rows, indent=2) + "\n")
    with tracking.run(folder.name, run_id=searched.run_id, kind="search") as run:
        for file in files:
            run.file(file)
        run.metrics({"trials": float(len(rows)), "on_front": float(sum(best))}, step=0)
    return files


def _split(trials: Sequence[Trial], best: Sequence[bool]) -> tuple[list[Trial], list[Trial]]:
    """Return the trials on the front, cheap to dear, and the others."""
    on_front = [trial for trial, keep in zip(trials, best, strict=True) if keep]
    others = [trial for trial, keep in zip(trials, best, strict=True) if not keep]
    return sorted(on_front, key=lambda trial: trial.gmacs), others


def _image(trials: Sequence[Trial], best: Sequence[bool], path: Path) -> None:
    on_front, others = _split(trials, best)
    figure, axes = plt.subplots(figsize=(6, 4), dpi=150)
    axes.scatter([t.gmacs for t in others], [t.iou for t in others], c="0.6", label="dominated")
    axes.plot([t.gmacs for t in on_front], [t.iou for t in on_front], "o-", label="Pareto front")
    for trial in on_front:
        axes.annotate(_label(trial), (trial.gmacs, trial.iou), fontsize=7)
    axes.set_xlabel("mean GMACs of a frame, balanced point")
    axes.set_ylabel("mean IoU, validation pairs")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def _page(trials: Sequence[Trial], best: Sequence[bool], path: Path) -> None:
    figure = go.Figure()
    on_front, others = _split(trials, best)
    for name, mode, group in (
        ("dominated", "markers", others),
        ("front", "lines+markers", on_front),
    ):
        figure.add_scatter(
            x=[t.gmacs for t in group],
            y=[t.iou for t in group],
            text=[f"{t.name}: {t.changes}" for t in group],
            mode=mode,
            name=name,
        )
    figure.update_layout(
        xaxis_title="mean GMACs of a frame, balanced point", yaxis_title="mean IoU"
    )
    figure.write_html(path, include_plotlyjs=True)


def _label(trial: Trial) -> str:
    exits = "-".join(str(depth) for depth in trial.changes.get("model.exits", ()))
    return f" {exits} {trial.changes.get('model.recycling', '')}"

"""A run's points on accuracy and cost, kept with it in one form whatever the run was.

``pareto.json`` says what was measured, on which data and by which rules, on which machine, and the
points. Runs of trainings, evaluations and searches have one; ``dytrack pareto`` draws several.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dytrack_platform.experiment.runs import tracking  # sets MLflow's environment first

import mlflow  # isort: skip
from mlflow.exceptions import MlflowException

from dytrack_platform.errors import ConfigurationError, ModelLookupError
from dytrack_platform.evaluation.report.figures import pareto_figure, write_still
from dytrack_platform.evaluation.report.labels import sensible_range
from dytrack_platform.evaluation.report.page import (
    Figure,
    Section,
    colour,
    number,
    table,
    write_page,
)
from dytrack_platform.evaluation.report.pareto import standard_volume
from dytrack_platform.storage.atomic import write_atomically

FILE, PAGE, STILL = "pareto.json", "pareto.html", "pareto.png"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPoint:
    """One operating point, baseline or member."""

    name: str
    accuracy: float
    gmacs: float | None = None
    ms: float | None = None
    baseline: bool = False
    """Whether it stands beside, as what points are compared with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPoints:
    """The points of a run."""

    name: str
    kind: str
    """train, evaluate or search."""
    measure: str
    """success_auc or iou: what accuracy is."""
    data: str
    """Dataset and split, or what pairs."""
    protocol: str
    """Rules of the measure."""
    machine: str
    """What milliseconds are of."""
    points: tuple[RunPoint, ...]

    @property
    def hypervolume(self) -> float:
        """Of its points without baselines, against the reference point that all runs share."""
        return standard_volume(
            [(p.accuracy, p.gmacs) for p in self.points if p.gmacs is not None and not p.baseline]
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {**asdict(self), "hypervolume": self.hypervolume}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunPoints":
        """Build from what :meth:`to_dict` gave."""
        known = {key: value for key, value in values.items() if key != "hypervolume"}
        return cls(**{**known, "points": tuple(RunPoint(**one) for one in values["points"])})

    def metrics(self) -> dict[str, float]:
        """Return ``NAME/success_auc``, ``NAME/ms``, ``NAME/gmacs`` and ``hypervolume``."""
        found = {"hypervolume": self.hypervolume}
        for point in self.points:
            values = {self.measure: point.accuracy, "ms": point.ms, "gmacs": point.gmacs}
            found |= {f"{point.name}/{k}": v for k, v in values.items() if v is not None}
        return found


def write(folder: Path, own: RunPoints, *, still: bool = True) -> list[Path]:
    """Write ``pareto.json``, ``pareto.html`` and, unless there is one, ``pareto.png``.

    Raises:
        StorageError: A file cannot be written.
    """
    write_atomically(folder / FILE, json.dumps(own.to_dict(), indent=1) + "\n")
    return [folder / FILE, *draw(folder, [own], still=still)]


def draw(folder: Path, runs: Sequence[RunPoints], *, still: bool = True) -> list[Path]:
    """Write ``pareto.html`` and maybe ``pareto.png`` of one run, or of several on one page.

    Runs that measured the same thing on the same data share a picture (the second is
    ``pareto-2.png``); milliseconds share one only where they are of one machine.

    Raises:
        StorageError: A file cannot be written.
    """
    groups: dict[str, list[RunPoints]] = {}
    for one in runs:
        key = f"{one.measure} on {one.data}, {one.protocol}"
        groups.setdefault(key, []).append(one)
    sections = []
    for place, (title, own) in enumerate(groups.items()):
        figures = {f"gmacs-{place}": _figure(own, "gmacs")}
        by_machine: dict[str, list[RunPoints]] = {}
        for one in own:
            if any(point.ms is not None for point in one.points):
                by_machine.setdefault(one.machine, []).append(one)
        for number_of, (machine, some) in enumerate(by_machine.items()):
            figure = _figure(some, "ms")
            figure["layout"]["title"] = {"text": f"Milliseconds of {machine}"}
            figures[f"ms-{place}-{number_of}"] = figure
        sections.append(Section(title=title, figures=figures, body=_table(own)))
    names = ", ".join(one.name for one in runs)
    write_page(
        folder / PAGE,
        title=f"Accuracy and cost of {names}",
        lead="Hypervolume: share of the area between an accuracy of 0 and 1 and a cost of 100 "
        "and 0.01 GMACs, on a logarithmic scale, that a run's points cover: it can be compared "
        "between runs on the same data. Fronts of different data are apart.",
        sections=sections,
        data={"runs": [one.to_dict() for one in runs]},
    )
    if not still:
        return [folder / PAGE]
    pictures = zip(stills(len(groups)), groups.values(), strict=True)
    return [folder / PAGE, *(_still(folder / name, own) for name, own in pictures)]


def stills(count: int) -> list[str]:
    """Return the file names of as many pictures: ``pareto.png``, ``pareto-2.png``, ..."""
    return [STILL, *(f"{Path(STILL).stem}-{k}.png" for k in range(2, count + 1))]


def _still(path: Path, group: Sequence[RunPoints]) -> Path:
    many = len(group) > 1  # names of points are those of a run
    every = [(p.baseline, _shown(one, p, whole=many)) for one in group for p in one.points]
    ours = [point for beside, point in every if not beside]
    rest = [point for beside, point in every if beside]
    accuracy = group[0].measure
    return write_still(path, ours, rest, costs=("gmacs",), accuracy=accuracy, kind="members")


def find(reference: str) -> RunPoints:
    """Read the points of a run from MLflow.

    Raises:
        ModelLookupError: There is no such run, or it has no points.
    """
    if not tracking.exists(reference):
        raise ModelLookupError(f"{reference}: no such run in the store {tracking.shown()}")
    with TemporaryDirectory(prefix="dytrack-") as name:
        try:
            path = mlflow.artifacts.download_artifacts(
                run_id=reference, artifact_path=FILE, dst_path=name
            )
            return RunPoints.from_dict(json.loads(Path(path).read_text()))
        except (MlflowException, OSError) as error:
            raise ModelLookupError(
                f"run {reference}: has no {FILE}; finished trainings, evaluations and "
                "searches have one"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(f"run {reference}: its {FILE} is damaged: {error}") from error


def told_apart(runs: Sequence[RunPoints], references: Sequence[str]) -> list[RunPoints]:
    """Give runs of one name, as all evaluations on one dataset have, a part of their id besides.

    Args:
        runs: The runs.
        references: The id of each.

    Raises:
        ConfigurationError: A run was named twice.
    """
    for reference in references:
        if list(references).count(reference) > 1:
            raise ConfigurationError(f"{reference}: was named twice; name each run once")
    names = [one.name for one in runs]
    return [
        replace(one, name=f"{one.name} {own[:8]}") if names.count(one.name) > 1 else one
        for one, own in zip(runs, references, strict=True)
    ]


def _figure(runs: Sequence[RunPoints], cost: str) -> Figure:
    figure: Figure = {"data": [], "layout": {}}
    for place, one in enumerate(runs):
        ours = [_shown(one, p) for p in one.points if not p.baseline]
        rest = [_shown(one, p) for p in one.points if p.baseline]
        own = pareto_figure(ours, rest, cost, accuracy=one.measure, kind="members")
        for trace in own["data"]:
            if len(runs) > 1:
                trace["legendgroup"] = one.name
                trace["name"] = f"{one.name}: {trace['name']}"
                if trace["mode"] != "lines":
                    trace["marker"] = {**trace["marker"], "color": colour(place)}
                else:
                    trace["line"] = {**trace["line"], "color": colour(place)}
        figure["data"] += own["data"]
        figure["layout"] = own["layout"]
    # Each picture's axes are for its own points; the page's are for all of them.
    every = [p for one in runs for p in map(partial(_shown, one), one.points)]
    shown = [p for p in every if p[cost] is not None]
    for axis, key, from_zero in (("xaxis", cost, True), ("yaxis", runs[0].measure, False)):
        limits = sensible_range((p[key] for p in shown), from_zero=from_zero)
        figure["layout"][axis]["range"] = list(limits)
    return figure


def _shown(one: RunPoints, point: RunPoint, *, whole: bool = False) -> dict[str, Any]:
    return {
        "name": f"{point.name} of {one.name}" if whole else point.name,
        one.measure: point.accuracy,
        "gmacs": point.gmacs,
        "ms": point.ms,
    }


def _table(runs: Sequence[RunPoints]) -> Any:  # noqa: ANN401  (Markup)
    cells = [
        [
            one.name,
            one.kind,
            point.name,
            number(point.accuracy),
            number(point.gmacs, 4),
            number(point.ms, 2),
            "" if point.baseline else number(one.hypervolume, 4),
        ]
        for one in runs
        for point in one.points
    ]
    header = ["run", "kind", "point", runs[0].measure, "GMACs", "ms", "hypervolume of the run"]
    return table(header, cells)

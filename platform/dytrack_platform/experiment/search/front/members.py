"""Members of a front, as others read them: ``front.json``, a recipe for each, and the details."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dytrack_model.policy import OperatingPoint
from dytrack_platform.config import ExperimentConfig, SearchConfig, dump, resolve, to_dict
from dytrack_platform.config.search import ACCURACY, Mode
from dytrack_platform.errors import StorageError
from dytrack_platform.experiment.runs.pareto import RunPoint, RunPoints
from dytrack_platform.experiment.search.points.latency import Latency, Measuring, machine
from dytrack_platform.experiment.search.points.rerun import Measured, Rerun
from dytrack_platform.experiment.search.points.threshold_front import (
    Point,
    keeps,
    operating_point,
    table_of,
    unbeaten_values,
)
from dytrack_platform.experiment.search.space import EXITS
from dytrack_platform.storage.atomic import write_atomically
from dytrack_platform.storage.outputs import MADE_BY

FRONT, DETAILS = "front.json", "details.json"
WEIGHTS = "members"
"""Folder with the weights and operating points of members that no other run keeps."""
CACHE = "exits"
"""Folder with what every exit says along the videos, by tracker."""
WRITTEN = (FRONT, DETAILS, CACHE, "search.json", "front", "front.html", "front.png", "latency.json")
"""What a search writes into its folder, beside its journal and its trials."""
MARKS = ("search.json", DETAILS, "front.html")
"""Those by which its folder is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A tracker with thresholds that is worth having, or was looked at."""

    name: str
    exits: tuple[int, ...]
    """Depths in blocks that it may leave at."""
    policy: dict[str, Any]
    """An operating point of the tracker in ``weights``."""
    changes: dict[str, Any]
    """Dotted keys and values that differ from the recipe."""
    iou: float
    """Promised: on the half of the cached sequences that no threshold was chosen on."""
    ms: float | None
    gmacs: float
    closed_loop: dict[str, float] | None
    """success_auc, iou, ms and gmacs as measured; None where it was not run."""
    on_front: bool
    weights: str | None
    """Folder of the tracker."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, as ``front.json`` has them."""
        return {**asdict(self), "exits": list(self.exits)}

    def costs(self) -> dict[str, float]:
        """Return what counts of it: measured where it was measured, else promised."""
        promised = {ACCURACY: self.iou, "gmacs": self.gmacs, "ms": self.ms}
        known = promised | (self.closed_loop or {})
        return {name: float(value) for name, value in known.items() if value is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A point together with the tracker that it is of."""

    point: Point
    depths: tuple[int, ...]
    """(E,) exits of that tracker."""
    changes: dict[str, Any]
    """Of the recipe; without the placement where the tracker has more exits."""
    weights: str | None
    trial: int | None = None
    """Number of the trial that made the tracker."""
    measured: Measured | None = None
    refitted: bool = False

    def after(self, found: Rerun) -> "Candidate":
        """Return it with what its closed loop gave."""
        return Candidate(
            point=found.point,
            depths=self.depths,
            changes=self.changes,
            weights=self.weights,
            trial=self.trial,
            measured=found.measured,
            refitted=found.refitted,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Front:
    """What a search leaves behind."""

    mode: Mode
    name: str
    members: tuple[Member, ...]
    candidates: tuple[Candidate, ...]
    """Of each member, in the same order."""
    objectives: tuple[str, ...]
    reference: tuple[float, ...]
    hypervolume: float
    """Of all points that the search kept, as promised, against the reference point."""
    latency: tuple[Latency, ...]
    """The tables that milliseconds are from: of one machine."""
    baselines: dict[str, Point] = field(default_factory=dict)
    measured_baselines: dict[str, Measured] = field(default_factory=dict)
    """In closed loop: random exits, cycle and fixed exits beside the knee point."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Plain JSON: settings tried, sequences, seconds."""


def named(candidates: Sequence[Candidate], search: SearchConfig) -> list[Member]:
    """Turn candidates into members, cheap to dear, and say which of them nothing beats.

    Where a member was measured, that counts; what was only promised is compared by its promise. One
    that breaks a constraint as measured is not on the front, unless all do.
    """
    members = []
    for number, one in enumerate(candidates, 1):
        name = f"{number:02d}"
        values = one.point.values
        members.append(
            Member(
                name=name,
                exits=one.point.exits,
                policy=operating_point(name, one.depths, one.point.setting).to_dict(),
                changes={**one.changes, EXITS: list(one.point.exits)},
                iou=values[ACCURACY],
                ms=values.get("ms"),
                gmacs=values["gmacs"],
                closed_loop=None if one.measured is None else _loop(one.measured),
                on_front=False,
                weights=one.weights,
            )
        )
    counted = [
        member.costs() | {"params": one.point.values.get("params", float("nan"))}
        for member, one in zip(members, candidates, strict=True)
    ]
    kept = [k for k, values in enumerate(counted) if keeps(values, search)]
    kept = kept or list(range(len(counted)))
    unbeaten = unbeaten_values([counted[k] for k in kept], search.objectives)
    best = {kept[k] for k in unbeaten}
    return [
        Member(**{**_fields(member), "on_front": number in best})
        for number, member in enumerate(members)
    ]


def _fields(member: Member) -> dict[str, Any]:
    return {name: getattr(member, name) for name in Member.__dataclass_fields__}


def _loop(measured: Measured) -> dict[str, float]:
    found = {"success_auc": measured.success_auc, "iou": measured.iou}
    for name in ("ms", "gmacs"):
        if name in measured.values:
            found[name] = measured.values[name]
    return found


def knee(members: Sequence[Member], objectives: Sequence[str]) -> Member:
    """Return the member of the front that lies farthest from the line between its ends.

    The line is one of accuracy and the first cost that a member states (gmacs or ms). Each is
    scaled to the front's own range; of equally far ones, as any two are, the most accurate one.
    """
    best = [member for member in members if member.on_front]
    cost = next((name for name in objectives if name in ("gmacs", "ms")), "gmacs")
    up = table_of([member.costs() for member in best], (ACCURACY, cost)) * [1.0, -1.0]
    spans = up.max(axis=0) - up.min(axis=0)
    scaled = (up - up.min(axis=0)) / [span or 1.0 for span in spans]
    # On the line between the two ends the scaled goals sum to one.
    far = scaled.sum(axis=1).round(9).tolist()
    return best[max(range(len(best)), key=lambda k: (far[k], up[k, 0]))]


def write(front: Front, config: ExperimentConfig, out: Path) -> list[Path]:
    """Write ``front.json``, ``details.json`` and ``front/NN.yaml`` for members of the front.

    Raises:
        StorageError: A file cannot be written.
    """
    rows = [member.to_dict() for member in front.members]
    files = [out / FRONT, out / DETAILS]
    write_atomically(files[0], json.dumps(rows, indent=2, allow_nan=False) + "\n")
    write_atomically(files[1], json.dumps(details(front), indent=1) + "\n")
    return files + write_recipes(front.members, config, out)


def write_recipes(found: Sequence[Member], config: ExperimentConfig, out: Path) -> list[Path]:
    """Write ``front/NN.yaml`` for members of the front; those of an earlier front go.

    Raises:
        StorageError: A file cannot be written or removed.
    """
    files = []
    for member in found:
        if member.on_front:
            files.append(out / "front" / f"{member.name}.yaml")
            write_atomically(files[-1], recipe(config, member))
    try:
        for path in (out / "front").glob("*.yaml"):
            if path.stem.isdecimal() and path not in files:
                path.unlink()
    except OSError as error:
        raise StorageError(f"{path}: cannot be removed: {error.strerror}") from error
    return files


def load(folder: Path) -> list[Member]:
    """Read the members that ``front.json`` of a folder holds; none where there is no such file.

    Raises:
        StorageError: The file is damaged, or of another version.
    """
    path = folder / FRONT
    try:
        return [member_of(row) for row in json.loads(path.read_text())]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StorageError(f"{path}: cannot be read: {error}; remove it") from error


def member_of(row: Mapping[str, Any]) -> Member:
    """Build a member from its row of ``front.json``."""
    return Member(**{**row, "exits": tuple(row["exits"])})


def recipe(config: ExperimentConfig, member: Member) -> str:
    """Return the recipe of a member, ready for ``dytrack train``."""
    values = to_dict(config)
    values["search"] = {}
    changed = resolve(values, {**member.changes, "name": f"{config.name}-{member.name}"})
    ms = "" if member.ms is None else f", {member.ms:.2f} ms"
    lead = f"# Member {member.name}: IoU {member.iou:.3f}, {member.gmacs:.4f} GMACs{ms} promised.\n"
    return lead + dump(changed)


def details(front: Front) -> dict[str, Any]:
    """Return what ``details.json`` holds: all that the page shows and others do not rely on."""
    members = {}
    for member, one in zip(front.members, front.candidates, strict=True):
        members[member.name] = {
            "shares": list(one.point.shares),
            "params": one.point.values.get("params"),
            "by_sequence": one.point.by_sequence,
            "trial": one.trial,
            "refitted": one.refitted,
            "measured_shares": None if one.measured is None else list(one.measured.shares),
            "measured_by_sequence": None if one.measured is None else one.measured.by_sequence,
        }
    return {
        "generator": MADE_BY,
        "mode": front.mode,
        "name": front.name,
        "objectives": list(front.objectives),
        "reference": list(front.reference),
        "hypervolume": front.hypervolume,
        "latency": [asdict(table) for table in front.latency],
        "members": members,
        "baselines": {
            name: {"exits": list(point.exits), "values": point.values}
            for name, point in front.baselines.items()
        },
        "measured_baselines": {
            name: {"success_auc": one.success_auc, "values": one.values}
            for name, one in front.measured_baselines.items()
        },
        **front.notes,
    }


def point_of(member: Member) -> OperatingPoint:
    """Return a member's policy as an operating point of its tracker."""
    return OperatingPoint.from_dict(member.policy)


def metrics(found: Sequence[Member], before: Sequence[Member] = ()) -> dict[str, float]:
    """Return every member's values by name, for MLflow: ``01/iou``, ``01/closed_loop/iou``.

    Args:
        found: The members.
        before: Those of the search's front before. MLflow forgets no metric: what the front has
            no more is not a number.
    """
    gone = {key: math.nan for member in before for key in _metrics(member)}
    return gone | {key: value for member in found for key, value in _metrics(member).items()}


def _metrics(member: Member) -> dict[str, float]:
    values = {"iou": member.iou, "gmacs": member.gmacs, "ms": member.ms}
    values |= {f"closed_loop/{k}": v for k, v in (member.closed_loop or {}).items()}
    return {f"{member.name}/{k}": v for k, v in values.items() if v is not None}


def trial_name(number: int) -> str:
    """Return what a trial is called in MLflow."""
    return f"trial-{number:03d}"


def machine_of(how: Measuring) -> str:
    """Name the machine that milliseconds are measured on."""
    return machine(how.device)


def run_points(front: Front, data: str) -> RunPoints:
    """Return members, as measured where they were, in the form that all runs share."""
    looped = all(member.closed_loop is not None for member in front.members)
    measure = "success_auc" if looped else ACCURACY
    return RunPoints(
        name=front.name,
        kind="search",
        measure=measure,
        data=data,
        protocol="closed loop" if looped else "pairs",
        machine=", ".join(sorted({table.machine for table in front.latency})),
        points=tuple(
            RunPoint(
                name=member.name,
                accuracy=member.costs()[measure],
                gmacs=member.costs()["gmacs"],
                ms=member.costs().get("ms"),
            )
            for member in front.members
        ),
    )

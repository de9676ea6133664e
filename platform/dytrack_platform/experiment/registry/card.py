"""A version's card: what is known of a tracker when it is published, in one JSON file.

The card travels with the version as an artefact. It is what a gate compares: scores by sequence,
the data behind them, and what every exit costs on a named machine.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dytrack_model import checkpoint
from dytrack_model.checkpoint import SavedTracker
from dytrack_model.cost import exit_costs, exit_milliseconds
from dytrack_model.runtime import build
from dytrack_platform.errors import DataError, ModelLookupError
from dytrack_platform.evaluation.peers.contest import processor

FILE = "card.json"
FORMAT = 1
_FRAMES = 20
"""Frames to time each exit with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Where milliseconds were measured."""

    processor: str
    threads: int
    runtime: str
    precision: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ExitRow:
    """What a frame costs that stops at one exit."""

    depth: int
    parameters: int
    gmacs: float
    milliseconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PointRow:
    """One operating point."""

    name: str
    rule: str
    exit_share: tuple[float, ...] = ()
    """Share of frames by exit in the evaluation; empty without one."""
    success_auc: float | None = None
    """In the evaluation."""
    milliseconds: float | None = None
    """Mean over the frames of the evaluation, as :func:`expected_ms` has it."""
    gmacs: float | None = None
    """Mean billions of multiply-accumulates over these frames."""
    sequences: Mapping[str, float] = field(default_factory=dict)
    """Success AUC by sequence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """What is known of a published tracker."""

    machine: Machine
    exits: tuple[ExitRow, ...]
    points: tuple[PointRow, ...]
    dataset: str = ""
    protocol: str = ""
    data: str = ""
    """Digest of the frames and annotations that the scores are about."""
    lineage: Mapping[str, str] = field(default_factory=dict)
    """Recipe, commit, fingerprint of the training's data, runs of training and search."""

    def point(self, name: str) -> PointRow | None:
        """Return the row of a point, if it has one."""
        return next((row for row in self.points if row.name == name), None)

    def write(self, path: Path) -> None:
        """Write JSON."""
        path.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Card":
        """Read what :meth:`write` wrote.

        Raises:
            ModelLookupError: There is no card, or a damaged one.
        """
        try:
            values = json.loads(path.read_text())
            return cls(
                machine=Machine(**values["machine"]),
                exits=tuple(ExitRow(**row) for row in values["exits"]),
                points=tuple(
                    PointRow(**{**row, "exit_share": tuple(row["exit_share"])})
                    for row in values["points"]
                ),
                dataset=values["dataset"],
                protocol=values["protocol"],
                data=values["data"],
                lineage=values["lineage"],
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelLookupError(
                f"{path.name}: this version has no card that can be read ({type(error).__name__}); "
                "publish the tracker again"
            ) from error


def make_card(
    saved: SavedTracker, summary: Mapping[str, Any], lineage: Mapping[str, str], threads: int
) -> Card:
    """Measure a tracker's exits on this machine, and join its evaluation.

    Args:
        saved: The tracker.
        summary: Of its evaluation (:func:`read_summary`); empty where there is none.
        lineage: Where the tracker came from.
        threads: Threads of the network, for the card's word about the machine.
    """
    costs = exit_costs(saved.network, frames=_FRAMES)
    exits = tuple(
        ExitRow(
            depth=cost.depth,
            parameters=cost.parameters,
            gmacs=cost.gmacs,
            milliseconds=cost.milliseconds or 0.0,
        )
        for cost in costs
        if not cost.narrow
    )
    measured = {point["name"]: point for point in summary.get("points", ())}
    rows = [
        _row(point.name, point.rule, measured.pop(point.name, None), exits)
        for point in saved.points
    ]
    rows += [_row(name, "", found, exits) for name, found in measured.items()]
    return Card(
        machine=Machine(processor=processor(), threads=threads, runtime="torch", precision="fp32"),
        exits=exits,
        points=tuple(rows),
        dataset=summary.get("dataset", ""),
        protocol=summary.get("protocol", ""),
        data=summary.get("data", ""),
        lineage=dict(lineage),
    )


def read_summary(evaluation: Path, tracker: Path) -> dict[str, Any]:
    """Read the summary of a tracker's evaluation.

    Args:
        evaluation: Folder of the evaluation.
        tracker: Folder of the tracker.

    Raises:
        DataError: The folder holds none, a damaged one, or one of another tracker.
    """
    path = evaluation / "summary.json"
    try:
        summary = json.loads(path.read_text())
        _ = summary["points"], summary["protocol"]
        blocks = tuple(summary["exit_blocks"])
    except OSError as error:
        raise DataError(
            f"{path}: no such file; give the folder that dytrack evaluate wrote"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not the summary of an evaluation; evaluate again") from error
    exits = checkpoint.read_config(checkpoint.find(tracker)).exits
    if blocks != exits:
        raise DataError(
            f"{evaluation}: evaluates a tracker with exits after blocks {list(blocks)}, "
            f"this one has {list(exits)}; give its own evaluation"
        )
    if summary.get("model") not in (None, checkpoint.fingerprint(tracker)):  # older ones are mute
        raise DataError(
            f"{evaluation}: evaluates a tracker with other weights than {tracker}; give its own "
            "evaluation"
        )
    return dict(summary)


def _row(
    name: str, rule: str, found: Mapping[str, Any] | None, exits: tuple[ExitRow, ...]
) -> PointRow:
    if found is None:
        return PointRow(name=name, rule=rule)
    shares = tuple(float(share) for share in found["exit_share"] or ())
    times = [one.milliseconds for one in exits]
    ms = expected_ms(shares, times, exits, found["gmacs"]) if shares else None
    sequences = {
        sequence: float(row["success_auc"])
        for sequence, row in found["per_sequence"].items()
        if row["success_auc"] is not None
    }
    return PointRow(
        name=name,
        rule=rule,
        exit_share=shares,
        success_auc=found["success_auc"],
        milliseconds=ms,
        gmacs=found["gmacs"],
        sequences=sequences,
    )


def measure_beside(one: SavedTracker, other: SavedTracker) -> tuple[list[float], list[float]]:
    """Time the exits of two trackers here and now, taking turns; milliseconds by exit."""
    engines = [build(saved.network) for saved in (one, other)]
    times: list[list[tuple[float, ...]]] = [[], []]
    for _ in range(3):
        for rounds, engine in zip(times, engines, strict=True):
            rounds.append(exit_milliseconds(engine, _FRAMES // 2, warm_up=1))
    ours, theirs = ([sorted(column)[1] for column in zip(*r, strict=True)] for r in times)
    return ours, theirs


def expected_ms(
    shares: Sequence[float],
    milliseconds: Sequence[float],
    exits: Sequence[ExitRow],
    gmacs: float | None,
) -> float:
    """Return the mean milliseconds of a frame.

    Args:
        shares: Of the frames at each exit.
        milliseconds: Of a frame at each exit over the whole search region.
        exits: What else is known of the exits.
        gmacs: Mean cost of a frame that was counted: frames that look at the narrow region, or
            run more heads, take less and more time, in proportion.
    """
    by_exit = sum(share * ms for share, ms in zip(shares, milliseconds, strict=False))
    planned = sum(share * one.gmacs for share, one in zip(shares, exits, strict=False))
    return by_exit * gmacs / planned if gmacs is not None and planned > 0 else by_exit

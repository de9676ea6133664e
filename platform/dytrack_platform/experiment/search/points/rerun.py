"""Run members of a front again in closed loop: what a cache promised, and what comes of it.

A cache holds one track's crops; an exit's box moves the next crop. Where promise and measurement
differ by more than the recipe tolerates, thresholds are fitted once more on what the member's own
tracks showed on the half of the sequences that thresholds are chosen on.

Dimensions: E exits, K exits of a placement.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from dytrack_model.depth_value import AUDIT_EVERY
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import Policy
from dytrack_model.thresholds import quantile_thresholds
from dytrack_platform.config import ExperimentConfig
from dytrack_platform.config.schema import ResidentSource
from dytrack_platform.config.search import ACCURACY
from dytrack_platform.experiment.search.points.exit_cache import (
    ExitCache,
    Floats,
    clearness,
    from_tracks,
)
from dytrack_platform.experiment.search.points.threshold_front import Costs, Point, operating_point
from dytrack_platform.training.closed_loop import (
    Film,
    ManyTargets,
    Tracked,
    always,
    follow,
)
from dytrack_platform.training.memory import films_of, many_targets
from dytrack_platform.training.metrics import dtype_of

_STEPS = np.linspace(0, 1, 21)
"""Thresholds of the success curve, as in OTB's toolkit."""


@dataclass(frozen=True, slots=True)
class Videos:
    """Held-out sequences in memory."""

    pictures: object
    films: tuple[Film, ...]
    left_out: tuple[str, ...]
    """Sequences that cannot be followed."""
    device: torch.device

    @classmethod
    def read(cls, source: ResidentSource, frames: int, device: torch.device) -> "Videos":
        """Read a dataset's split, ``frames`` of each sequence (0: all).

        Raises:
            DataError: The folder or the split is missing, or no sequence can be used.
        """
        pictures, films, left_out = films_of((source,), device, frames or None)
        return cls(pictures, films, left_out, device)

    def targets(self, config: ExperimentConfig, network: DyTrackNetwork) -> ManyTargets:
        """Return what follows all targets with a network."""
        half = dtype_of(config.train.precision, self.device) != torch.float32
        network = network.to(self.device).eval()
        return many_targets(network, self.pictures, half=half)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What a policy gives in closed loop."""

    success_auc: float
    """Mean over sequences of the area under the success curve, first frames not counted."""
    iou: float
    """Mean over sequences of the mean IoU."""
    values: dict[str, float]
    """iou and every cost of a frame, as the promise has them."""
    shares: tuple[float, ...]
    """(E,) share of the frames at each exit of the tracker."""
    by_sequence: dict[str, float]
    """Mean IoU of each sequence by name."""


def record(many: ManyTargets, films: Sequence[Film]) -> ExitCache:
    """Follow films at full depth and keep what every exit says, before any correction."""
    last = many.network.exit_count - 1
    tracked = follow(many, films, always(last, films), correct=False)
    return from_tracks(many.network.config.exits, films, tracked)


def run(
    many: ManyTargets,
    films: Sequence[Film],
    policies: Mapping[str, Callable[[], Policy]],
    costs: Costs,
) -> dict[str, tuple[Measured, list[Tracked]]]:
    """Follow all films under each policy, by name.

    Args:
        many: Follows them.
        films: Held-out sequences.
        policies: Make a fresh policy for a film.
        costs: Of the tracker's exits.
    """
    found = {}
    for name, make in policies.items():
        own = [make() for _ in films]
        tracked = follow(many, films, own)
        reads = any(policy.reads_head for policy in own)
        found[name] = (_measured(films, tracked, costs, reads_heads=reads), tracked)
    return found


def _measured(
    films: Sequence[Film], tracked: Sequence[Tracked], costs: Costs, *, reads_heads: bool
) -> Measured:
    means, aucs = {}, []
    for film, track in zip(films, tracked, strict=True):
        own = track.own_iou[np.isfinite(track.own_iou)]
        means[film.name] = float(own.mean())
        aucs.append(float((own[None] > _STEPS[:, None]).mean()))
    exits = tracked[0].iou.shape[1]
    taken = np.concatenate([track.exits for track in tracked])
    shares = np.bincount(taken, minlength=exits) / len(taken)
    iou = float(np.mean(list(means.values())))
    spent = costs.spent(shares[None], np.array([reads_heads]))
    values = {ACCURACY: iou} | {name: float(cost[0]) for name, cost in spent.items()}
    if "params" in costs.stop:
        values["params"] = float(costs.stop["params"][-1])
    return Measured(
        success_auc=float(np.mean(aucs)),
        iou=iou,
        values=values,
        shares=tuple(shares.tolist()),
        by_sequence=means,
    )


def policy_of(depths: Sequence[int], point: Point) -> Callable[[], Policy]:
    """Return what makes the policy of a point on a tracker with exits after ``depths``."""
    chosen = operating_point("", depths, point.setting)
    return chosen.policy


@dataclass(frozen=True, kw_only=True, slots=True)
class Rerun:
    """A member with what it promised and what it gave."""

    point: Point
    """Its thresholds, fitted again where that was asked for, with the promise for these."""
    measured: Measured
    refitted: bool
    """Whether these are not the thresholds that the cache gave at first."""


def rerun(
    many: ManyTargets,
    films: Sequence[Film],
    choosing: Sequence[Film],
    points: Sequence[Point],
    costs: Costs,
    tolerance: float,
    promise: Callable[[Sequence[Point]], list[Point]],
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> list[Rerun]:
    """Run points in closed loop, and those that miss their promise once more.

    Args:
        many: Follows targets with the tracker that the points are of.
        films: Sequences that no threshold is chosen on.
        choosing: Those that thresholds are fitted again on.
        points: The members.
        costs: Of the tracker's exits.
        tolerance: Difference in IoU from which on thresholds are fitted again.
        promise: Scores settings on the cache.
        tell: Called with how many members are done, and how many there are.
    """
    depths, done = many.network.config.exits, []
    for number, point in enumerate(points):
        tell(number, len(points))
        measured, _ = run(many, films, {"": policy_of(depths, point)}, costs)[""]
        own = Rerun(point=point, measured=measured, refitted=False)
        if abs(measured.iou - point.values[ACCURACY]) > tolerance and len(point.exits) > 1:
            _, tracked = run(many, choosing, {"": policy_of(depths, point)}, costs)[""]
            again = promise([_refitted(depths, point, tracked)])[0]
            if again.thresholds != point.thresholds:
                second, _ = run(many, films, {"": policy_of(depths, again)}, costs)[""]
                fitted = Rerun(point=again, measured=second, refitted=True)
                own = fitted if _misses(fitted) < _misses(own) else own
        done.append(own)
    tell(len(points), len(points))
    return done


def _misses(one: Rerun) -> float:
    return abs(one.measured.iou - one.point.values[ACCURACY])


def _refitted(depths: Sequence[int], point: Point, tracked: Sequence[Tracked]) -> Point:
    """Choose thresholds that give the promised shares on what the member's own tracks showed."""
    fixed = point.thresholds[0] == 0 or all(math.isinf(value) for value in point.thresholds)
    if fixed:
        return point  # one depth only: no threshold is compared with
    places = [depths.index(depth) for depth in point.exits]
    said = [
        track.predicted_iou if point.rule == "thresholds" else clearness(track.shown)
        for track in tracked
    ]
    scores: Floats = np.concatenate(said)[:, places]
    shares = np.array(point.shares)
    if point.setting.reads_heads:
        # Frames that run to full depth whatever they show are no business of the thresholds.
        age = np.concatenate([np.arange(len(track.exits)) for track in tracked])
        audited = age % AUDIT_EVERY == 0
        scores = scores[~audited]
        shares[-1] = max(0.0, shares[-1] - float(audited.mean()))
        shares /= shares.sum()
    return replace(point, thresholds=quantile_thresholds(scores, shares.tolist()))

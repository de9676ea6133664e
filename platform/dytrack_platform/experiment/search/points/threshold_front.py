"""Solve the thresholds of exit placements on cached outputs, and keep the points worth having.

Thresholds are no business of a sampler: with the outputs of all exits in memory thousands of
settings take a second. They are chosen on one half of the sequences; what counts is what they
give on the other.

Dimensions: N frames, S sequences, E exits of the cache, K exits of a placement, P settings,
G goals.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from dytrack_model.correction import corrected_along, overlap
from dytrack_model.depth_value import (
    AMBIGUITY,
    AUDIT_EVERY,
    FEATURES,
    ValueRule,
    ambiguity_weights,
)
from dytrack_model.policy import OperatingPoint
from dytrack_model.thresholds import exits_taken, quantile_thresholds
from dytrack_platform.config.search import ACCURACY, GOALS, PointRule, SearchConfig
from dytrack_platform.evaluation.report.pareto import dominated, hypervolume
from dytrack_platform.experiment.search.points.exit_cache import (
    ExitCache,
    Flags,
    Floats,
    Integers,
)

_STEEPEST = 6.0
"""Logarithm of the steepest ratio between the shares of neighbouring exits: e^6 is 400."""

Placement = tuple[int, ...]


class Setting(NamedTuple):
    """What can be chosen."""

    exits: Placement
    """(K,) depths of exits."""
    thresholds: tuple[float, ...] = ()
    """(K - 1,)."""
    rule: PointRule = "thresholds"
    """What is compared with them: the predicted IoU, or how clear the answer is."""

    @property
    def decides(self) -> bool:
        """Whether some answer can change where a frame leaves."""
        return any(0 < limit < math.inf for limit in self.thresholds)

    @property
    def reads_heads(self) -> bool:
        """Whether the heads of exits that are passed run."""
        return self.rule == "ambiguity" and self.decides


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """What frames cost."""

    stop: Mapping[str, Floats]
    """(E,) cost of a stop at each exit of the cache by name: gmacs, and maybe ms and params."""
    learning: Mapping[str, float] = field(default_factory=dict)
    """What a frame at full depth costs more by name, where other frames leave earlier: the heads
    of shallower exits run too, and their boxes are corrected by it."""

    def spent(self, shares: Floats, reads_heads: Flags) -> dict[str, Floats]:
        """Return what a frame costs in the mean (P,), by name; weights are no cost of a frame.

        Args:
            shares: (P, E) share of the frames at each exit.
            reads_heads: (P,) whether the heads of exits that are passed run.
        """
        exits, deep = shares.shape[1], shares[:, -1]
        # Heads of all exits cost the same, so those before an exit are its share of all of them.
        passed = shares @ (np.arange(exits) / max(exits - 1, 1))
        heads = np.where(reads_heads, passed, np.where(deep < 1, deep, 0.0))
        return {
            name: shares @ cost + self.learning.get(name, 0.0) * heads
            for name, cost in self.stop.items()
            if name != "params"
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A placement with thresholds, and what it gives."""

    exits: Placement
    """(K,) depths of the exits that it may leave at."""
    thresholds: tuple[float, ...]
    """(K - 1,)."""
    rule: PointRule = "thresholds"
    """What is compared with them."""
    shares: tuple[float, ...]
    """(K,) share of the frames at each of them."""
    values: dict[str, float]
    """iou (the mean over sequences), gmacs, and where known ms and params."""
    by_sequence: dict[str, float] = field(default_factory=dict)
    """Mean IoU of each sequence by name."""

    @property
    def setting(self) -> Setting:
        """What was chosen."""
        return Setting(self.exits, self.thresholds, self.rule)


def path(scores: Floats, count: int) -> list[tuple[float, ...]]:
    """Return up to ``count`` settings of K - 1 thresholds, from all shallow to all deep.

    Shares of the exits form geometric series (MSDNet, ICLR 2018), whose ratio rises along the
    path.

    Args:
        scores: (N, K) predicted IoU, or clearness, to take quantiles of.
        count: Settings to try.
    """
    exits = scores.shape[1]
    if exits == 1:
        return [()]
    found: list[tuple[float, ...]] = [(0.0,) * (exits - 1), (math.inf,) * (exits - 1)]
    for slope in np.linspace(-_STEEPEST, _STEEPEST, max(count - 2, 0)):
        weights = np.exp(slope * np.arange(exits) - max(0.0, slope * (exits - 1)))
        found.append(quantile_thresholds(scores, (weights / weights.sum()).tolist()))
    return list(dict.fromkeys(found))


@dataclass(frozen=True, kw_only=True, slots=True)
class Solved:
    """What a cache is worth."""

    points: tuple[Point, ...]
    """Those that nothing beat where thresholds were chosen, as scored on the other half."""
    hypervolume: float
    """Of these scores against the reference point."""
    tried: int
    """Settings that were scored."""


def solve(
    cache: ExitCache,
    placements: Sequence[Placement],
    costs: Costs,
    search: SearchConfig,
    reference: Sequence[float],
) -> Solved:
    """Try every placement with every threshold setting.

    Args:
        cache: Outputs of all exits.
        placements: Sets of the cache's depths. Those that end before the deepest one leave by
            thresholds whatever the rule is: ambiguity is weighed against full depth.
        costs: Cost of a stop at each exit of the cache.
        search: Objectives, constraints and how many settings to try.
        reference: (G,) value of each objective from which on a point is worthless.
    """
    choosing, scoring = cache.halves()
    first = cache.part(choosing)
    settings = []
    for exits in placements:
        full = exits[-1] == cache.depths[-1]
        rule: PointRule = "ambiguity" if search.rule == "ambiguity" and full else "thresholds"
        limits = path(first.scores(rule)[:, columns(cache, exits)], search.thresholds)
        settings += [Setting(exits, thresholds, rule) for thresholds in limits]
    chosen = score(first, settings, costs)
    allowed = [point for point in chosen if keeps(point.values, search)]
    best = [allowed[k] for k in unbeaten(allowed, search.objectives)]
    points = score(cache.part(scoring), [point.setting for point in best], costs)
    kept = [point for point in points if keeps(point.values, search)]
    return Solved(
        points=tuple(points),
        hypervolume=volume(kept, search.objectives, reference),
        tried=len(settings),
    )


def score(cache: ExitCache, settings: Sequence[Setting], costs: Costs) -> list[Point]:
    """Say what P settings give on a cache's frames."""
    if not settings:
        return []
    taken = np.empty((len(settings), len(cache.sequence)), np.int64)
    audited = ages(cache) % AUDIT_EVERY == 0
    for row, setting in enumerate(settings):
        own = np.array(columns(cache, setting.exits))
        taken[row] = own[exits_taken(cache.scores(setting.rule)[:, own], setting.thresholds)]
        if setting.reads_heads:
            taken[row, audited] = own[-1]
    return judge(cache, settings, taken, costs)


def judge(
    cache: ExitCache, settings: Sequence[Setting], taken: Integers, costs: Costs
) -> list[Point]:
    """Say what P settings give whose exits ``taken`` (P, N), columns of the cache, are known."""
    exits = len(cache.depths)
    numbers, places = np.unique(cache.sequence, return_inverse=True)
    weights = np.zeros((len(places), len(numbers)))
    weights[np.arange(len(places)), places] = 1.0 / np.bincount(places)[places]
    means = own_iou(cache, taken) @ weights
    shares = np.stack([(taken == k).mean(axis=1) for k in range(exits)], axis=1)
    spent = costs.spent(shares, np.array([setting.reads_heads for setting in settings]))
    names = [cache.names[number] for number in numbers]
    points = []
    for row, setting in enumerate(settings):
        kept = columns(cache, setting.exits)
        values = {ACCURACY: float(means[row].mean())}
        values |= {name: float(cost[row]) for name, cost in spent.items()}
        if "params" in costs.stop:  # weights are there whether or not a frame needs them
            values["params"] = float(costs.stop["params"][kept[-1]])
        points.append(
            Point(
                exits=tuple(setting.exits),
                thresholds=tuple(setting.thresholds),
                rule=setting.rule,
                shares=tuple(shares[row, kept].tolist()),
                values=values,
                by_sequence=dict(zip(names, means[row].tolist(), strict=True)),
            )
        )
    return points


def own_iou(cache: ExitCache, taken: Integers) -> Floats:
    """Return (P, N) IoU of the boxes of the exits ``taken`` (P, N), columns of the cache.

    Where frames follow each other, shallow boxes are corrected as the tracker does it.
    """
    frames = np.arange(taken.shape[1])
    if cache.boxes_xywh is None or cache.truth_xywh is None:
        return np.asarray(cache.iou[frames, taken], np.float64)
    found = np.empty(taken.shape)
    for number in np.unique(cache.sequence):
        own = np.flatnonzero(cache.sequence == number)
        boxes = corrected_along(cache.boxes_xywh[own], taken[:, own])
        found[:, own] = overlap(boxes, cache.truth_xywh[own])
    return found


def ages(cache: ExitCache) -> Integers:
    """Return (N,) how many frames of its sequence lie before each frame."""
    starts = np.searchsorted(cache.sequence, cache.sequence)
    return np.asarray(np.arange(len(cache.sequence)) - starts, np.int64)


def columns(cache: ExitCache, exits: Sequence[int]) -> list[int]:
    """Return (K,) positions of depths among the cache's exits."""
    return [cache.depths.index(depth) for depth in exits]


def keeps(values: Mapping[str, float], search: SearchConfig) -> bool:
    """Say whether values keep every constraint."""
    return all(bound.kept(values.get(bound.name, math.nan)) for bound in search.bounds)


def table_of(points: Sequence[Mapping[str, float]], objectives: Sequence[str]) -> Floats:
    """Return (P, G) values of the objectives; NaN where one is not known."""
    rows = [[values.get(name, math.nan) for name in objectives] for values in points]
    return np.array(rows, dtype=np.float64).reshape(len(points), len(objectives))


def unbeaten(points: Sequence[Point], objectives: Sequence[str]) -> list[int]:
    """Return the positions of the points that no other beats; of equal ones the first."""
    return unbeaten_values([point.values for point in points], objectives)


def unbeaten_values(points: Sequence[Mapping[str, float]], objectives: Sequence[str]) -> list[int]:
    """Return the positions of the values that no others beat; of equal ones the first."""
    if not points:
        return []
    values = table_of(points, objectives)
    _, first = np.unique(values, axis=0, return_index=True)
    beaten = dominated(values[first], [GOALS[name] for name in objectives])
    return sorted(first[~beaten].tolist())


def volume(points: Sequence[Point], objectives: Sequence[str], reference: Sequence[float]) -> float:
    """Return the hypervolume of points against (G,) a reference point."""
    return volume_of([point.values for point in points], objectives, reference)


def volume_of(
    points: Sequence[Mapping[str, float]], objectives: Sequence[str], reference: Sequence[float]
) -> float:
    """Return the hypervolume of values against (G,) a reference point."""
    values = table_of(points, objectives)
    return hypervolume(values, [GOALS[name] for name in objectives], tuple(reference))


def spread(
    points: Sequence[Mapping[str, float]],
    objectives: Sequence[str],
    reference: Sequence[float],
    most: int,
) -> list[int]:
    """Choose at most ``most`` points that cover the most together; returns their positions.

    One after the other, each the one that adds most to the hypervolume: within 63 % of the best
    set, for the volume of a union is submodular. Cheap ones come first.
    """
    left, chosen = list(range(len(points))), list[int]()
    covered = 0.0
    while left and len(chosen) < most:
        gains = [
            volume_of([points[i] for i in (*chosen, k)], objectives, reference) - covered
            for k in left
        ]
        best = int(np.argmax(gains))
        if gains[best] <= 0:
            break
        covered += gains[best]
        chosen.append(left.pop(best))
    return sorted(chosen, key=lambda k: points[k][ordering_cost(objectives)])


def ordering_cost(objectives: Sequence[str]) -> str:
    """Return the cost that members are put in order by: the last one of the objectives."""
    return [name for name in objectives if name != ACCURACY][-1]


def reference_point(search: SearchConfig, full_depth: Mapping[str, float]) -> tuple[float, ...]:
    """Return (G,) the reference point: what the recipe states, or its default.

    Args:
        search: Objectives and the stated values.
        full_depth: Costs of the recipe's own model at full depth, by name.
    """
    return tuple(
        search.reference.get(name, 0.0 if name == ACCURACY else 1.1 * full_depth.get(name, 0.0))
        for name in search.objectives
    )


def expand(depths: Sequence[int], setting: Setting) -> tuple[float, ...]:
    """Return (E - 1,) thresholds of a tracker with exits after ``depths`` (E,).

    Infinite ones stand at exits that the placement lacks: the tracker never leaves there.
    """
    limits = dict(zip(setting.exits, setting.thresholds, strict=False))
    if setting.exits[-1] != depths[-1]:
        limits[setting.exits[-1]] = 0.0
    return tuple(limits.get(depth, math.inf) for depth in depths[:-1])


def operating_point(name: str, depths: Sequence[int], setting: Setting) -> OperatingPoint:
    """Return a setting as the point of a tracker with exits after ``depths`` (E,)."""
    limits = expand(depths, setting)
    if not setting.reads_heads:
        return OperatingPoint(name=name, thresholds=limits)
    costs = tuple(depth / depths[-1] for depth in depths)
    weights = []
    for row, limit, cost in zip(ambiguity_weights(len(depths)), limits, costs, strict=False):
        # A frame leaves where its ambiguity is below this. The rule compares it, weighted, with
        # what is left of the cost; one that must never leave has a value that nothing outweighs.
        allowed = sum(AMBIGUITY) * (1.0 - limit)
        if allowed <= 0:
            weights.append((1e6,) + (0.0,) * (FEATURES - 1))
        else:
            scale = (1.0 - cost) / allowed if limit > 0 else 0.0
            weights.append(tuple(scale * one for one in row))
    value = ValueRule(weights=tuple(weights), costs=costs, price=1.0, audit_every=AUDIT_EVERY)
    return OperatingPoint(name=name, thresholds=(0.0,) * len(limits), value=value)

"""What a front is to be compared with, from the same cache: rules that look at nothing, bounds.

Dimensions: N frames, E exits of the cache, K exits of a placement.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from dytrack_model.policy import shares_to_cycle
from dytrack_platform.experiment.search.points.exit_cache import ExitCache
from dytrack_platform.experiment.search.points.threshold_front import (
    Costs,
    Point,
    Setting,
    ages,
    columns,
    judge,
    path,
    score,
)

_DRAWS = 5
_SLACK = (0.0, 0.01, 0.03, 0.1)
"""IoU that an oracle may lose to the best exit of a frame, to be cheaper."""
PAPER = (2, 6, 12)
"""Exits of the paper's tracker of 12 blocks."""


def at_shares(cache: ExitCache, members: Mapping[str, Point], costs: Costs) -> dict[str, Point]:
    """Return exits drawn at random with each member's shares, and the fixed cycle of these shares.

    Args:
        cache: Of the members' tracker.
        members: By name; ``random NAME`` and ``cycle NAME`` stand beside it.
        costs: Of the tracker's exits.
    """
    half = cache.part(cache.halves()[1])
    found: dict[str, Point] = {}
    for name, member in members.items():
        if len(member.exits) > 1 and max(member.shares) < 1:
            found[f"random {name}"] = random_exits(half, member, costs)
            found[f"cycle {name}"] = cycled(half, member, costs)
    return found


def baselines(cache: ExitCache, members: Mapping[str, Point], costs: Costs) -> dict[str, Point]:
    """Return, by name, what a tracker's members are to be measured by, on the half that scores.

    What :func:`at_shares` gives; every exit alone; the paper's placement along its thresholds; the
    oracle over all exits.
    """
    half = cache.part(cache.halves()[1])
    found = at_shares(cache, members, costs)
    alone = [Setting((depth,)) for depth in cache.depths]
    for depth, point in zip(cache.depths, score(half, alone, costs), strict=True):
        found[f"exit-{depth}"] = point
    if set(PAPER) <= set(cache.depths):
        first = cache.part(cache.halves()[0])
        limits = path(first.predicted[:, columns(cache, PAPER)], 9)
        for number, point in enumerate(score(half, [Setting(PAPER, one) for one in limits], costs)):
            found[f"paper {number}"] = point
    for slack in _SLACK:
        found[f"oracle {slack:g}"] = oracle(half, costs, slack)
    return found


def random_exits(cache: ExitCache, member: Point, costs: Costs) -> Point:
    """Leave at random with the member's shares; the mean of several draws."""
    kept = np.array(columns(cache, member.exits))
    rng = np.random.default_rng(0)
    taken = kept[rng.choice(len(kept), (_DRAWS, len(cache.sequence)), p=_shares(member))]
    setting = Setting(member.exits, member.thresholds)
    drawn = judge(cache, [setting] * _DRAWS, taken, costs)
    names = list(drawn[0].by_sequence)
    return replace(
        drawn[0],
        values={k: float(np.mean([d.values[k] for d in drawn])) for k in drawn[0].values},
        by_sequence={n: float(np.mean([d.by_sequence[n] for d in drawn])) for n in names},
    )


def cycled(cache: ExitCache, member: Point, costs: Costs) -> Point:
    """Leave in a fixed cycle with about the member's shares, from each sequence's start on."""
    kept, cycle = columns(cache, member.exits), shares_to_cycle(_shares(member))
    taken = np.array([kept[one] for one in cycle])[ages(cache) % len(cycle)]
    return judge(cache, [Setting(member.exits, member.thresholds)], taken[None], costs)[0]


def oracle(cache: ExitCache, costs: Costs, slack: float) -> Point:
    """Leave at the first exit whose box is within ``slack`` of the frame's best IoU: a bound."""
    enough = cache.iou >= cache.iou.max(axis=1, keepdims=True) - slack
    taken = enough.argmax(axis=1)[None]
    return judge(cache.uncorrected(), [Setting(cache.depths)], taken, costs)[0]


def paired_interval(
    one: Mapping[str, float], other: Mapping[str, float], *, draws: int = 2000
) -> tuple[float, float, float]:
    """Return the mean difference one - other over sequences, and its 95 % bootstrap interval.

    One sequence is one sample: the frames of a video resemble each other. A single one tells
    nothing of others, so that its interval is all that two values of IoU can differ by.
    """
    names = sorted(set(one) & set(other))
    differences = np.array([one[name] - other[name] for name in names])
    if len(names) == 1:
        return float(differences[0]), -1.0, 1.0
    chosen = np.random.default_rng(0).integers(0, len(names), (draws, len(names)))
    means = differences[chosen].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(differences.mean()), float(low), float(high)


def like_cheaper(
    members: Sequence[Mapping[str, float]], costs: Sequence[float]
) -> list[tuple[int, float, float, float] | None]:
    """Say of each member whether it is not proved better than a cheaper one.

    Args:
        members: Mean IoU of each sequence by name, of each member.
        costs: What a frame costs with each.

    Returns:
        The cheaper member's position, the mean difference and its interval, of the best cheaper
        member whose paired interval reaches 0; None where every cheaper one is beaten.
    """
    found: list[tuple[int, float, float, float] | None] = []
    for own, cost in zip(members, costs, strict=True):
        overlapping = []
        for position, (other, cheaper) in enumerate(zip(members, costs, strict=True)):
            if cheaper < cost:
                mean, low, high = paired_interval(own, other)
                if low <= 0:
                    overlapping.append((mean, position, low, high))
        if overlapping:
            mean, position, low, high = min(overlapping)
            found.append((position, mean, low, high))
        else:
            found.append(None)
    return found


def _shares(member: Point) -> list[float]:
    shares = np.array(member.shares)
    return [float(value) for value in shares / shares.sum()]

"""The trade between goals: which points nothing beats, and how much they cover."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Goal = Literal["max", "min"]


def dominated(values: NDArray[np.float64], goals: Sequence[Goal]) -> NDArray[np.bool_]:
    """Say which points another point beats.

    A point is beaten when another is at least as good in every goal and better in one; equal
    points do not beat each other. A point with NaN beats none and counts as beaten.

    Args:
        values: (N, G) one row per point.
        goals: The direction of each column.

    Returns:
        (N,) flags.
    """
    up = _upwards(values, goals)
    at_least = (up[:, None, :] >= up[None, :, :]).all(axis=2)
    better = (up[:, None, :] > up[None, :, :]).any(axis=2)
    beaten: NDArray[np.bool_] = np.any(at_least & better, axis=0)
    beaten |= np.isnan(up).any(axis=1)
    return beaten


def front(values: NDArray[np.float64], goals: Sequence[Goal]) -> NDArray[np.intp]:
    """Return the positions of the points that nothing beats, ordered by the second goal.

    Args:
        values: (N, G) with two goals or more.
        goals: The direction of each column.
    """
    kept = np.flatnonzero(~dominated(values, goals))
    return kept[np.argsort(values[kept, 1], kind="stable")]


def hypervolume(
    values: NDArray[np.float64], goals: Sequence[Goal], reference: Sequence[float]
) -> float:
    """Return the exact volume that points dominate, seen from a reference point.

    Args:
        values: (N, G) one row per point.
        goals: The direction of each column.
        reference: The worst value of each goal; points no better than it in one add nothing.

    Returns:
        The volume in the product of the units. Source: slices along the last goal, each measured
        by the goals before it; made for the few goals and some hundred points of a search.
    """
    origin = _upwards(np.array([reference], dtype=np.float64), goals)[0]
    up = _upwards(values, goals) - origin
    up = up[(up > 0).all(axis=1)]  # NaN is not above 0
    return _volume(up)


DEAREST, CHEAPEST = 100.0, 0.01
"""GMACs of a frame between which the standard hypervolume measures: a ViT-L at 384 pixels costs
about 100, the smallest transformer that tracks at all some hundredths."""


def standard_volume(points: Sequence[tuple[float, float]]) -> float:
    """Return the share of the area of all trackers that points cover, in [0, 1].

    The area lies between an accuracy of 0 and 1 and between a cost of :data:`DEAREST` and of
    :data:`CHEAPEST` GMACs on a logarithmic scale. It is the same for every dataset and protocol,
    so that two runs on the same data can be compared.

    Args:
        points: Accuracy and GMACs of each.
    """
    decades = np.log10(DEAREST) - np.log10(CHEAPEST)
    rows = [
        [accuracy, np.log10(max(cost, CHEAPEST)) / decades]
        for accuracy, cost in points
        if np.isfinite(accuracy) and np.isfinite(cost)
    ]
    values = np.array(rows, dtype=np.float64).reshape(-1, 2)
    return hypervolume(values, ("max", "min"), (0.0, np.log10(DEAREST) / decades))


def _volume(up: NDArray[np.float64]) -> float:
    """Return the volume of the union of boxes from the origin to (N, G) positive corners."""
    if len(up) == 0:
        return 0.0
    if up.shape[1] == 1:
        return float(up.max())
    ordered = up[np.argsort(-up[:, -1], kind="stable")]
    if up.shape[1] == 2:
        # Of high points first: each adds a strip that is as wide as it is wider than those before.
        widest = np.maximum.accumulate(ordered[:, 0])
        below = np.append(ordered[1:, 1], 0.0)
        return float((widest * (ordered[:, 1] - below)).sum())
    heights = np.append(ordered[:, -1], 0.0)
    slices = (
        _volume(ordered[: k + 1, :-1]) * (heights[k] - heights[k + 1])
        for k in range(len(ordered))
        if heights[k] > heights[k + 1]
    )
    return float(sum(slices))


def _upwards(values: NDArray[np.float64], goals: Sequence[Goal]) -> NDArray[np.float64]:
    signs = np.array([1.0 if goal == "max" else -1.0 for goal in goals])
    up: NDArray[np.float64] = np.asarray(values, dtype=np.float64) * signs
    return up

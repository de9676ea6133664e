"""The trade between two goals: which points nothing beats, and how much they cover."""

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
    values: NDArray[np.float64], goals: Sequence[Goal], reference: tuple[float, float]
) -> float:
    """Return the exact area that points dominate, seen from a reference point (two goals).

    Args:
        values: (N, 2) one row per point.
        goals: The direction of both columns.
        reference: The worst value of each goal; points no better than it add nothing.

    Returns:
        The area in the product of the two units.
    """
    origin = _upwards(np.array([reference], dtype=np.float64), goals)[0]
    up = _upwards(values, goals) - origin
    up = up[(up > 0).all(axis=1)]  # NaN is not above 0
    area, height = 0.0, 0.0
    for width, rise in up[np.lexsort((-up[:, 1], -up[:, 0]))]:
        if rise > height:
            area += float(width) * (float(rise) - height)
            height = float(rise)
    return area


def _upwards(values: NDArray[np.float64], goals: Sequence[Goal]) -> NDArray[np.float64]:
    signs = np.array([1.0 if goal == "max" else -1.0 for goal in goals])
    up: NDArray[np.float64] = np.asarray(values, dtype=np.float64) * signs
    return up

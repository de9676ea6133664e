"""Overlaps, centre errors and the curves made of them: arrays in, arrays out.

Nothing here knows a benchmark's rules (``profiles.py`` has them) and nothing changes its inputs.
Boxes are ``x, y, w, h`` in pixels and travel as four columns, so that every step of a measure is
one pass over contiguous memory. A curve is a histogram: a :class:`ThresholdCounter` says in one
pass between which thresholds each value lies, where a loop over thresholds reads the values again
for each.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.intp]
Edges = Literal["inclusive", "plain", "guarded"]
Scale = Literal["quotients", "guarded-quotients", "difference", "quotient-of-difference"]


class Columns(NamedTuple):
    """Boxes as four contiguous arrays of one shape, in pixels."""

    x: Floats
    y: Floats
    w: Floats
    h: Floats


def columns(boxes_xywh: NDArray[np.generic]) -> Columns:
    """Copy (..., 4) boxes into four contiguous float64 arrays of shape (...)."""
    return Columns(*(np.ascontiguousarray(boxes_xywh[..., k], dtype=np.float64) for k in range(4)))


def are_whole(boxes: Columns) -> NDArray[np.bool_]:
    """Tell of each row of (R, N) boxes whether all have a place and an area: (R,)."""
    placed = ~(np.isnan(boxes.x) | np.isnan(boxes.y))
    return np.asarray((placed & (boxes.w > 0) & (boxes.h > 0)).all(axis=1))


_EPSILON = float(np.finfo(np.float64).eps)


def overlaps(a: Columns, b: Columns, edges: Edges = "plain") -> Floats:
    """Intersection over union of box pairs.

    The three ways differ only in how they round (see EVALUATION tables of the toolkits): the
    one pixel added and taken away again by the inclusive way can move the last digit.

    Args:
        a: Predicted boxes; any shape that broadcasts with ``b``.
        b: Annotated boxes.
        edges: ``inclusive`` right = x + w - 1 (MATLAB, pytracking); ``plain`` right = x + w,
            clipped to [0, 1] (pysot); ``guarded`` plain with the machine epsilon added to the
            union, so that two boxes without area overlap by 0 instead of NaN (got10k).

    Returns:
        Values of the broadcast shape; NaN where a box has NaN.
    """
    if edges == "inclusive":
        width = _shared(a.x, a.x + a.w - 1, b.x, b.x + b.w - 1, 1.0)
        height = _shared(a.y, a.y + a.h - 1, b.y, b.y + b.h - 1, 1.0)
    else:
        width = _shared(a.x, a.x + a.w, b.x, b.x + b.w, 0.0)
        height = _shared(a.y, a.y + a.h, b.y, b.y + b.h, 0.0)
    with np.errstate(all="ignore"):
        shared = np.multiply(width, height, out=width)
        union = a.w * a.h + b.w * b.h - shared
        if edges == "guarded":
            union += _EPSILON
        found = np.divide(shared, union, out=shared)
        return found if edges == "inclusive" else np.clip(found, 0.0, 1.0, out=found)


def _shared(low_a: Floats, high_a: Floats, low_b: Floats, high_b: Floats, pixel: float) -> Floats:
    """Length that two intervals share, 0 where they are apart."""
    with np.errstate(all="ignore"):
        length = np.minimum(high_a, high_b)
        length -= np.maximum(low_a, low_b)
        length += pixel
        return np.maximum(length, 0.0, out=length)


def centre_errors(a: Columns, b: Columns) -> Floats:
    """Distances of the boxes' centres in pixels.

    Args:
        a: Predicted boxes; any shape that broadcasts with ``b``.
        b: Annotated boxes.
    """
    first, second = centres(a), centres(b)
    return _length(first.x - second.x, first.y - second.y)


def normalised_errors(a: Columns, b: Columns, scale: Scale) -> Floats:
    """Distances of the boxes' centres in widths and heights of the annotated box.

    The order of division and difference decides exact ties (EVALUATION: ``norm_ties``), so it
    is the toolkit's own.

    Args:
        a: Predicted boxes; any shape that broadcasts with ``b``.
        b: Annotated boxes.
        scale: ``quotients`` c/w - c'/w (MATLAB, pytracking); ``guarded-quotients`` the same over
            w + 1e-16 (pysot); ``difference`` (c - c') / max(1, w) (got10k master);
            ``quotient-of-difference`` (c - c') / w (TrackingNet).
    """
    first, second, w, h = centres(a), centres(b), b.w, b.h
    if scale == "guarded-quotients":
        w, h = w + 1e-16, h + 1e-16
    if scale == "difference":
        w, h = np.maximum(w, 1.0), np.maximum(h, 1.0)
    with np.errstate(all="ignore"):
        if scale in ("quotients", "guarded-quotients"):
            return _length(first.x / w - second.x / w, first.y / h - second.y / h)
        return _length((first.x - second.x) / w, (first.y - second.y) / h)


def _length(dx: Floats, dy: Floats) -> Floats:
    """Length of fresh (dx, dy), which are used up; not ``hypot``, whose last digit is another."""
    with np.errstate(all="ignore"):
        dx *= dx
        dy *= dy
        dx += dy
        return np.sqrt(dx, out=dx)


class Centres(NamedTuple):
    """Centres of boxes, in pixels."""

    x: Floats
    y: Floats


def centres(boxes: Columns) -> Centres:
    """Centres by the toolkits' inclusive convention, x + (w - 1) / 2; its shift cancels."""
    return Centres(
        *((size - 1) * 0.5 + low for low, size in zip(boxes[:2], boxes[2:], strict=True))
    )


class ThresholdCounter:
    """Rising thresholds that count values in one pass, exactly.

    The counts are those of a loop that compares every value with every threshold, ties included.
    """

    def __init__(self, thresholds: Floats, *, or_equal: bool = False) -> None:
        """Prepare thresholds.

        Args:
            thresholds: (T,) rising.
            or_equal: Whether a value that equals a threshold is above it.

        Raises:
            ValueError: The thresholds do not rise.
        """
        if not (np.diff(thresholds) > 0).all():
            raise ValueError(f"a counter needs thresholds that rise, got {thresholds}")
        # A search from the right counts equal thresholds as exceeded, one from the left does not.
        self._side: Literal["left", "right"] = "right" if or_equal else "left"
        self._thresholds = np.ascontiguousarray(thresholds, dtype=np.float64)

    def above(self, values: Floats) -> Counts:
        """Count values above each threshold; NaN is above none.

        Args:
            values: (R, N) measurements.

        Returns:
            (R, T) counts.
        """
        return self._exceeding(values, unknown=0)

    def within(self, values: Floats) -> Counts:
        """Count values at or below each threshold; NaN is within none.

        Args:
            values: (R, N) measurements.

        Returns:
            (R, T) counts.
        """
        found: Counts = values.shape[1] - self._exceeding(values, unknown=len(self._thresholds))
        return found

    def _exceeding(self, values: Floats, unknown: int) -> Counts:
        """Count, in each row, the values that exceed each threshold.

        Args:
            values: (R, N) measurements.
            unknown: How many thresholds NaN counts as having exceeded.
        """
        rows, bins = len(values), len(self._thresholds) + 1
        exceeded = np.searchsorted(self._thresholds, values, side=self._side)
        exceeded[np.isnan(values)] = unknown
        exceeded += np.arange(rows)[:, None] * bins  # a histogram of its own for each row
        found = np.bincount(exceeded.ravel(), minlength=rows * bins).reshape(rows, bins)
        # How many exceed at least k thresholds: the sum of the bins from k on.
        counts: Counts = found[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
        return counts


def mean_area(curve: Floats) -> float:
    """Area under a curve as the mean of its points: every toolkit's AUC but TrackingNet's."""
    return float(np.mean(curve))


def trapezoid_area(curve: Floats, thresholds: Floats) -> float:
    """Area under a curve by the trapezoid rule over the range of its thresholds, as a fraction."""
    return float(np.trapezoid(curve, thresholds) / (thresholds[-1] - thresholds[0]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Frames per second, both ways: the mean of reciprocals is never the smaller one."""

    frames_over_time: float
    """Frames divided by the sum of their times (pytracking, OTB)."""
    mean_of_reciprocals: float
    """Mean of 1 / time over frames with a positive time (got10k)."""


def speed(times_s: Floats) -> Speed:
    """Frames per second from per-frame seconds of any shape; NaN without a positive time."""
    positive = times_s[times_s > 0]
    if not positive.size:
        return Speed(frames_over_time=float("nan"), mean_of_reciprocals=float("nan"))
    return Speed(
        frames_over_time=float(times_s.size / np.sum(times_s)),
        mean_of_reciprocals=float(np.mean(1.0 / positive)),
    )

"""Overlaps, centre errors and the curves made of them: arrays in, arrays out.

Nothing here knows a benchmark's rules (``profiles.py`` has them) and nothing changes its inputs.
Boxes are ``x, y, w, h`` in pixels and travel as four columns, so that every step of a measure is
one pass over contiguous memory. A curve is a histogram: a :class:`Ruler` says in one pass between
which thresholds each value lies, where a loop over thresholds reads the values again for each.
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
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        if edges == "inclusive":
            width = _shared(a.x, a.x + a.w - 1, b.x, b.x + b.w - 1)
            height = _shared(a.y, a.y + a.h - 1, b.y, b.y + b.h - 1)
            width += 1
            height += 1
        else:
            width = _shared(a.x, a.x + a.w, b.x, b.x + b.w)
            height = _shared(a.y, a.y + a.h, b.y, b.y + b.h)
        np.maximum(width, 0, out=width)
        np.maximum(height, 0, out=height)
        shared = np.multiply(width, height, out=width)
        union = np.multiply(a.w, a.h, out=height)
        union += b.w * b.h
        union -= shared
        if edges == "guarded":
            union += np.finfo(np.float64).eps
        values = np.divide(shared, union, out=shared)
        if edges != "inclusive":
            np.clip(values, 0.0, 1.0, out=values)
    return values


def _shared(low_a: Floats, high_a: Floats, low_b: Floats, high_b: Floats) -> Floats:
    """Length that two intervals share, negative where they are apart."""
    length = np.minimum(high_a, high_b)
    length -= np.maximum(low_a, low_b)
    return length


class Centres(NamedTuple):
    """Centres of boxes, in pixels."""

    x: Floats
    y: Floats


def centres(boxes: Columns) -> Centres:
    """Centres by the toolkits' inclusive convention, x + (w - 1) / 2; its shift cancels."""
    return Centres(_middle(boxes.x, boxes.w), _middle(boxes.y, boxes.h))


def _middle(low: Floats, size: Floats) -> Floats:
    middle = size - 1
    middle *= 0.5
    middle += low
    return middle


def centre_errors(a: Centres, b: Centres) -> Floats:
    """Distances of centres in pixels."""
    return _length(a.x - b.x, a.y - b.y)


def normalised_errors(a: Centres, b: Centres, truth: Columns, scale: Scale) -> Floats:
    """Distances of centres in widths and heights of the annotated box.

    The order of division and difference decides exact ties (EVALUATION: ``norm_ties``), so it
    is the toolkit's own.

    Args:
        a: Predicted centres.
        b: Annotated centres.
        truth: Annotated boxes.
        scale: ``quotients`` c/w - c'/w (MATLAB, pytracking); ``guarded-quotients`` the same over
            w + 1e-16 (pysot); ``difference`` (c - c') / max(1, w) (got10k master);
            ``quotient-of-difference`` (c - c') / w (TrackingNet).
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        if scale in ("quotients", "guarded-quotients"):
            guard = 1e-16 if scale == "guarded-quotients" else 0.0
            width, height = truth.w + guard, truth.h + guard
            return _length(a.x / width - b.x / width, a.y / height - b.y / height)
        least = 1.0 if scale == "difference" else -np.inf
        width, height = np.maximum(truth.w, least), np.maximum(truth.h, least)
        return _length((a.x - b.x) / width, (a.y - b.y) / height)


def _length(dx: Floats, dy: Floats) -> Floats:
    """Euclidean length; uses up its arguments, which are always fresh differences."""
    with np.errstate(invalid="ignore", over="ignore"):
        np.multiply(dx, dx, out=dx)
        np.multiply(dy, dy, out=dy)
        dx += dy
        return np.sqrt(dx, out=dx)


class Ruler:
    """Evenly spaced thresholds from 0 that count values in one pass, exactly.

    A value's place is guessed by a division, which can only err beside a threshold, and there by
    one; a comparison with that very threshold then settles it. So the counts are those of a loop
    that compares every value with every threshold, ties included.
    """

    def __init__(self, thresholds: Floats, *, or_equal: bool = False) -> None:
        """Prepare thresholds.

        Args:
            thresholds: (T,) rising from 0 in equal steps.
            or_equal: Whether a value that equals a threshold is above it.

        Raises:
            ValueError: The thresholds are not evenly spaced from 0.
        """
        self._step = float(thresholds[-1]) / (len(thresholds) - 1)
        even = np.arange(len(thresholds)) * self._step
        if not np.abs(thresholds - even).max() <= self._step * _SLACK / 2:
            raise ValueError("a ruler needs thresholds that rise from 0 in equal steps")
        exact = np.nextafter(thresholds, -np.inf) if or_equal else thresholds
        self._exact = np.append(exact, np.inf)

    def above(self, values: Floats) -> Counts:
        """Count values above each threshold; NaN is above none.

        Args:
            values: (R, N) measurements.

        Returns:
            (R, T) counts.
        """
        histogram = self._histogram(values, unknown=0)
        return values.shape[1] - np.cumsum(histogram, axis=1)[:, :-1]

    def within(self, values: Floats) -> Counts:
        """Count values at or below each threshold; NaN is within none.

        Args:
            values: (R, N) measurements.

        Returns:
            (R, T) counts.
        """
        histogram = self._histogram(values, unknown=len(self._exact) - 1)
        return np.cumsum(histogram, axis=1)[:, :-1]

    def _histogram(self, values: Floats, unknown: int) -> Counts:
        """Count values by how many thresholds they are above: (R, T + 1)."""
        last = len(self._exact) - 1
        guess = values * (1.0 / self._step)
        guess += 1.0 - _SLACK  # never too high, and too low by one only within the slack
        if unknown == 0:
            np.fmax(guess, 0.0, out=guess)  # of NaN and a number, fmax and fmin give the number
            np.minimum(guess, last, out=guess)
        else:
            np.fmin(guess, last, out=guess)
            np.maximum(guess, 0.0, out=guess)
        place = guess.astype(np.intp)
        low = np.flatnonzero(values > self._exact.take(place))
        place.flat[low] += 1
        return np.stack([np.bincount(row, minlength=last + 1) for row in place])


_SLACK = 1e-9  # of a step; far above the rounding of a guess, far below any step


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

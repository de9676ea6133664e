"""Overlaps, centre errors and the curves made of them: arrays in, arrays out.

Nothing here knows a benchmark's rules (``profiles.py`` has them) and nothing changes its inputs.
Boxes are ``x, y, w, h`` in pixels and travel as four columns, so that every step of a measure is
one pass over contiguous memory. A curve is a histogram: a :class:`ThresholdCounter` says in one
pass between which thresholds each value lies, where a loop over thresholds reads the values again
for each.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.evaluation.scoring import kernels
from dytrack_platform.evaluation.scoring.kernels import Counts as Counts
from dytrack_platform.evaluation.scoring.kernels import Floats as Floats

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
    whole = np.empty(len(boxes.x), dtype=np.bool_)
    kernels.whole_rows()(*boxes, whole)
    return whole


class ScratchBuffers:
    """Memory for the arrays of one piece of work, to be used again for the next.

    The first touch of a fresh page costs more than the arithmetic that is done on it. A name
    stands for one array: asking for it again gives the same memory, so a result that lives in
    scratch memory is overwritten by the next call of the function that made it.
    """

    def __init__(self) -> None:
        self._memory: dict[str, NDArray[np.float64]] = {}

    def floats(self, name: str, shape: tuple[int, ...]) -> Floats:
        """Return an array of any content."""
        size = math.prod(shape)
        if name not in self._memory or len(self._memory[name]) < size:
            self._memory[name] = np.empty(size)
        return self._memory[name][:size].reshape(shape)


_OVERLAPS: dict[Edges, Callable[..., float]] = {
    "inclusive": kernels.overlap_inclusive,
    "plain": kernels.overlap_plain,
    "guarded": kernels.overlap_guarded,
}
_NORMALISED: dict[Scale, Callable[..., float]] = {
    "quotients": kernels.error_of_quotients,
    "guarded-quotients": kernels.error_of_guarded_quotients,
    "difference": kernels.error_of_difference,
    "quotient-of-difference": kernels.quotient_of_difference,
}


def overlaps(
    a: Columns, b: Columns, edges: Edges = "plain", scratch: ScratchBuffers | None = None
) -> Floats:
    """Intersection over union of box pairs.

    The three ways differ only in how they round (see EVALUATION tables of the toolkits): the
    one pixel added and taken away again by the inclusive way can move the last digit.

    Args:
        a: Predicted boxes; any shape that broadcasts with ``b``.
        b: Annotated boxes.
        edges: ``inclusive`` right = x + w - 1 (MATLAB, pytracking); ``plain`` right = x + w,
            clipped to [0, 1] (pysot); ``guarded`` plain with the machine epsilon added to the
            union, so that two boxes without area overlap by 0 instead of NaN (got10k).
        scratch: Where the result may live; fresh memory by default.

    Returns:
        Values of the broadcast shape; NaN where a box has NaN.
    """
    return _of_pairs(_OVERLAPS[edges], a, b, "overlap", scratch)


def centre_errors(a: Columns, b: Columns, scratch: ScratchBuffers | None = None) -> Floats:
    """Distances of the boxes' centres in pixels.

    Args:
        a: Predicted boxes; any shape that broadcasts with ``b``.
        b: Annotated boxes.
        scratch: Where the result may live; fresh memory by default.
    """
    return _of_pairs(kernels.centre_error, a, b, "error", scratch)


def normalised_errors(
    a: Columns, b: Columns, scale: Scale, scratch: ScratchBuffers | None = None
) -> Floats:
    """Distances of the boxes' centres in widths and heights of the annotated box.

    The order of division and difference decides exact ties (EVALUATION: ``norm_ties``), so it
    is the toolkit's own.

    Args:
        a: Predicted boxes; any shape that broadcasts with ``b``.
        b: Annotated boxes.
        scale: ``quotients`` c/w - c'/w (MATLAB, pytracking); ``guarded-quotients`` the same over
            w + 1e-16 (pysot); ``difference`` (c - c') / max(1, w) (got10k master);
            ``quotient-of-difference`` (c - c') / w (TrackingNet).
        scratch: Where the result may live; fresh memory by default.
    """
    return _of_pairs(_NORMALISED[scale], a, b, "norm", scratch)


def _of_pairs(
    rule: Callable[..., float], a: Columns, b: Columns, name: str, scratch: ScratchBuffers | None
) -> Floats:
    shape = np.broadcast_shapes(a.x.shape, b.x.shape)
    out = (scratch or ScratchBuffers()).floats(name, shape)
    with np.errstate(all="ignore"):
        return kernels.array_function(rule)(*a, *b, out=out)


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
    """Evenly spaced thresholds from 0 that count values in one pass, exactly.

    The counts are those of a loop that compares every value with every threshold, ties included.
    """

    def __init__(self, thresholds: Floats, *, or_equal: bool = False) -> None:
        """Prepare thresholds.

        Args:
            thresholds: (T,) rising from 0 in equal steps.
            or_equal: Whether a value that equals a threshold is above it.

        Raises:
            ValueError: The thresholds are not evenly spaced from 0.
        """
        step = float(thresholds[-1]) / (len(thresholds) - 1)
        uneven = np.abs(thresholds - np.arange(len(thresholds)) * step)
        if not uneven.max() <= step * _SLACK:
            raise ValueError("a counter needs thresholds that rise from 0 in equal steps")
        exact = np.nextafter(thresholds, -np.inf) if or_equal else thresholds
        self._exact = np.ascontiguousarray(exact, dtype=np.float64)
        self._scale = (1.0 + 2 * _SLACK) / step

    def above(self, values: Floats) -> Counts:
        """Count values above each threshold; NaN is above none.

        Args:
            values: (R, N) measurements.

        Returns:
            (R, T) counts.
        """
        return self._exceeding(values, 0)[:, 1:]

    def within(self, values: Floats) -> Counts:
        """Count values at or below each threshold; NaN is within none.

        Args:
            values: (R, N) measurements.

        Returns:
            (R, T) counts.
        """
        found: Counts = values.shape[1] - self._exceeding(values, len(self._exact))[:, 1:]
        return found

    def _exceeding(self, values: Floats, unknown: int) -> Counts:
        counts = np.zeros((len(values), len(self._exact) + 1), dtype=np.intp)
        values = np.ascontiguousarray(values)
        kernels.counter()(values, self._exact, self._scale, unknown, counts)
        return counts


_SLACK = 1e-12  # of a step; far above the rounding of a guess, far below any step


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

"""Overlaps, centre errors and the curves made of them: arrays in, arrays out.

Nothing here knows a benchmark's rules (``profiles.py`` has them) and nothing changes its inputs.
Boxes are ``x, y, w, h`` in pixels and travel as four columns, so that every step of a measure is
one pass over contiguous memory. A curve is a histogram: a :class:`Ruler` says in one pass between
which thresholds each value lies, where a loop over thresholds reads the values again for each.
"""

import math
from collections.abc import Callable
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


class Room:
    """Memory for the arrays of one piece of work, to be used again for the next.

    The first touch of a fresh page costs more than the arithmetic that is done on it. A name
    stands for one array: asking for it again gives the same memory, so a result that lives in a
    room is overwritten by the next call of the function that made it.
    """

    def __init__(self) -> None:
        self._memory: dict[str, NDArray[np.float64]] = {}

    def floats(self, name: str, shape: tuple[int, ...]) -> Floats:
        """Give an array of any content."""
        size = math.prod(shape)
        if name not in self._memory or len(self._memory[name]) < size:
            self._memory[name] = np.empty(size)
        return self._memory[name][:size].reshape(shape)

    def counts(self, name: str, shape: tuple[int, ...]) -> Counts:
        """Give an array of any content, of whole numbers."""
        return self.floats(name, shape).view(np.intp)


def overlaps(a: Columns, b: Columns, edges: Edges = "plain", room: Room | None = None) -> Floats:
    """Intersection over union of box pairs.

    The three ways differ only in how they round (see EVALUATION tables of the toolkits): the
    one pixel added and taken away again by the inclusive way can move the last digit.

    Args:
        a: Predicted boxes; any shape that broadcasts with ``b``.
        b: Annotated boxes.
        edges: ``inclusive`` right = x + w - 1 (MATLAB, pytracking); ``plain`` right = x + w,
            clipped to [0, 1] (pysot); ``guarded`` plain with the machine epsilon added to the
            union, so that two boxes without area overlap by 0 instead of NaN (got10k).
        room: Where the result may live; fresh memory by default.

    Returns:
        Values of the broadcast shape; NaN where a box has NaN.
    """
    room = room or Room()
    shape = np.broadcast_shapes(a.x.shape, b.x.shape)
    shared, height, spare = (room.floats(name, shape) for name in ("overlap", "height", "spare"))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        _intersect(a.x, a.w, b.x, b.w, edges, shared, spare)
        _intersect(a.y, a.h, b.y, b.h, edges, height, spare)
        shared *= height
        union = np.multiply(a.w, a.h, out=height)
        union += b.w * b.h
        union -= shared
        if edges == "guarded":
            union += np.finfo(np.float64).eps
        values = np.divide(shared, union, out=shared)
        if edges != "inclusive":
            np.clip(values, 0.0, 1.0, out=values)
    return values


def _intersect(
    low_a: Floats,
    size_a: Floats,
    low_b: Floats,
    size_b: Floats,
    edges: Edges,
    length: Floats,
    spare: Floats,
) -> None:
    """Write the length that two intervals share, 0 where they are apart."""
    high_b = low_b + size_b
    np.add(low_a, size_a, out=length)
    if edges == "inclusive":
        high_b -= 1
        length -= 1
    np.minimum(length, high_b, out=length)
    length -= np.maximum(low_a, low_b, out=spare)
    if edges == "inclusive":
        length += 1
    np.maximum(length, 0, out=length)


class Centres(NamedTuple):
    """Centres of boxes, in pixels."""

    x: Floats
    y: Floats


def centres(boxes: Columns, room: Room | None = None) -> Centres:
    """Centres by the toolkits' inclusive convention, x + (w - 1) / 2; its shift cancels."""
    room = room or Room()
    x, y = (room.floats(name, boxes.x.shape) for name in ("centre x", "centre y"))
    for middle, low, size in ((x, boxes.x, boxes.w), (y, boxes.y, boxes.h)):
        np.subtract(size, 1, out=middle)
        middle *= 0.5
        middle += low
    return Centres(x, y)


def centre_errors(a: Centres, b: Centres, room: Room | None = None) -> Floats:
    """Distances of centres in pixels."""
    room = room or Room()
    shape = np.broadcast_shapes(a.x.shape, b.x.shape)
    dx, dy = room.floats("error", shape), room.floats("spare", shape)
    with np.errstate(invalid="ignore", over="ignore"):
        return _length(np.subtract(a.x, b.x, out=dx), np.subtract(a.y, b.y, out=dy))


def normalised_errors(
    a: Centres, b: Centres, truth: Columns, scale: Scale, room: Room | None = None
) -> Floats:
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
        room: Where the result may live; fresh memory by default.
    """
    room = room or Room()
    shape = np.broadcast_shapes(a.x.shape, b.x.shape)
    dx, dy = room.floats("norm", shape), room.floats("spare", shape)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        if scale in ("quotients", "guarded-quotients"):
            guard = 1e-16 if scale == "guarded-quotients" else 0.0
            width, height = truth.w + guard, truth.h + guard
            np.divide(a.x, width, out=dx)
            np.divide(a.y, height, out=dy)
            dx -= b.x / width
            dy -= b.y / height
        else:
            least = 1.0 if scale == "difference" else -np.inf
            np.subtract(a.x, b.x, out=dx)
            np.subtract(a.y, b.y, out=dy)
            dx /= np.maximum(truth.w, least)
            dy /= np.maximum(truth.h, least)
        return _length(dx, dy)


def _length(dx: Floats, dy: Floats) -> Floats:
    """Euclidean length, written over the first argument; uses up the second."""
    dx *= dx
    dy *= dy
    dx += dy
    return np.sqrt(dx, out=dx)


class Ruler:
    """Evenly spaced thresholds from 0 that count values in one pass, exactly.

    A division guesses the highest threshold that a value may exceed. The guess is never too low,
    and too high by one at most; a comparison with that very threshold settles it. So the counts
    are those of a loop that compares every value with every threshold, ties included.
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
            raise ValueError("a ruler needs thresholds that rise from 0 in equal steps")
        self._exact = np.nextafter(thresholds, -np.inf) if or_equal else thresholds
        self._scale = (1.0 + 2 * _SLACK) / step

    def above(self, values: Floats, room: Room | None = None) -> Counts:
        """Count values above each threshold; NaN is above none.

        Args:
            values: (R, N) measurements.
            room: Where intermediate results may live.

        Returns:
            (R, T) counts.
        """
        last = len(self._exact) - 1

        def limit(guess: Floats) -> None:
            np.fmax(guess, 0, out=guess)  # of NaN and a number, fmax and fmin give the number
            np.minimum(guess, last, out=guess)

        def fails(values: Floats, thresholds: Floats) -> NDArray[np.bool_]:
            above: NDArray[np.bool_] = values > thresholds
            return ~above

        return self._count(values, limit, fails, room or Room())

    def within(self, values: Floats, room: Room | None = None) -> Counts:
        """Count values at or below each threshold; NaN is within none.

        Args:
            values: (R, N) measurements.
            room: Where intermediate results may live.

        Returns:
            (R, T) counts.
        """
        last = len(self._exact) - 1

        def limit(guess: Floats) -> None:
            np.fmin(guess, last, out=guess)
            np.maximum(guess, 0, out=guess)

        above = self._count(values, limit, np.less_equal, room or Room())
        return np.asarray(values.shape[1] - above, dtype=np.intp)

    def _count(
        self,
        values: Floats,
        limit: Callable[[Floats], None],
        fails: Callable[[Floats, Floats], NDArray[np.bool_]],
        room: Room,
    ) -> Counts:
        rows, frames = values.shape
        guess = np.multiply(values, self._scale, out=room.floats("spare", values.shape))
        limit(guess)
        place = room.counts("place", values.shape)
        np.copyto(place, guess, casting="unsafe")
        nearest = self._exact.take(place, out=guess, mode="clip")
        high = np.flatnonzero(fails(values, nearest))
        # Those whose guess is a threshold or a later one, but for those that do not exceed it.
        size = len(self._exact)
        guessed = np.stack([np.bincount(row, minlength=size) for row in place])
        wrong = np.bincount(high // frames * size + place.flat[high], minlength=rows * size)
        return np.cumsum(guessed[:, ::-1], axis=1)[:, ::-1] - wrong.reshape(rows, size)


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

"""The measures of one frame, compiled: what ``metrics.py`` does to whole arrays.

Each rule is written for the boxes of a single frame, in the toolkit's own order of operations, and
Numba makes a NumPy function of it that goes through memory once. No shortcut in the arithmetic is
allowed to the compiler, so the digits are those of the same steps in NumPy. What is compiled is
kept beside this file (or in ``NUMBA_CACHE_DIR``) and only loaded the next time.

Boxes are x, y, w, h in pixels. NaN in any of them gives NaN.
"""

from collections.abc import Callable
from functools import cache
from math import nan, sqrt
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.intp]

_EPSILON = float(np.finfo(np.float64).eps)


def _shared(low_a: float, high_a: float, low_b: float, high_b: float, pixel: float) -> float:
    """Length that two intervals share, 0 where they are apart."""
    if high_a != high_a or high_b != high_b:
        return nan
    length = min(high_a, high_b) - max(low_a, low_b) + pixel
    return 0.0 if length < 0.0 else length


def _length(dx: float, dy: float) -> float:
    return sqrt(dx * dx + dy * dy)


def _middle(low: float, size: float) -> float:
    return (size - 1.0) * 0.5 + low


def _difference(low_a: float, size_a: float, low_b: float, size_b: float, over: float) -> float:
    """Difference of two middles, over a size."""
    return (_middle(low_a, size_a) - _middle(low_b, size_b)) / over


def _quotients(low_a: float, size_a: float, low_b: float, size_b: float, over: float) -> float:
    """Difference of two middles, each over a size first."""
    return _middle(low_a, size_a) / over - _middle(low_b, size_b) / over


def _within_one(value: float) -> float:
    return 0.0 if value < 0.0 else 1.0 if value > 1.0 else value


_shared = numba.njit(inline="always")(_shared)
_length = numba.njit(inline="always")(_length)
_middle = numba.njit(inline="always")(_middle)
_difference = numba.njit(inline="always")(_difference)
_quotients = numba.njit(inline="always")(_quotients)
_within_one = numba.njit(inline="always")(_within_one)


def overlap_inclusive(
    ax: float, ay: float, aw: float, ah: float, bx: float, by: float, bw: float, bh: float
) -> float:
    """Overlap of boxes whose right edge is x + w - 1 (MATLAB, pytracking)."""
    width = _shared(ax, ax + aw - 1.0, bx, bx + bw - 1.0, 1.0)
    height = _shared(ay, ay + ah - 1.0, by, by + bh - 1.0, 1.0)
    shared = width * height
    return shared / (aw * ah + bw * bh - shared)


def overlap_plain(
    ax: float, ay: float, aw: float, ah: float, bx: float, by: float, bw: float, bh: float
) -> float:
    """Overlap of boxes whose right edge is x + w (pysot)."""
    shared = _shared(ax, ax + aw, bx, bx + bw, 0.0) * _shared(ay, ay + ah, by, by + bh, 0.0)
    return _within_one(shared / (aw * ah + bw * bh - shared))


def overlap_guarded(
    ax: float, ay: float, aw: float, ah: float, bx: float, by: float, bw: float, bh: float
) -> float:
    """Overlap with the machine epsilon added to the union (got10k)."""
    shared = _shared(ax, ax + aw, bx, bx + bw, 0.0) * _shared(ay, ay + ah, by, by + bh, 0.0)
    return _within_one(shared / (aw * ah + bw * bh - shared + _EPSILON))


def centre_error(
    ax: float, ay: float, aw: float, ah: float, bx: float, by: float, bw: float, bh: float
) -> float:
    """Distance of the centres in pixels."""
    return _length(_middle(ax, aw) - _middle(bx, bw), _middle(ay, ah) - _middle(by, bh))


def error_of_quotients(
    ax: float, ay: float, aw: float, ah: float, bx: float, by: float, bw: float, bh: float
) -> float:
    """Distance of centres, each over the annotated size first (MATLAB, pytracking)."""
    return _length(_quotients(ax, aw, bx, bw, bw), _quotients(ay, ah, by, bh, bh))


def error_of_guarded_quotients(
    ax: float, ay: float, aw: float, ah: float, bx: float, by: float, bw: float, bh: float
) -> float:
    """The same with 1e-16 added to the size (pysot)."""
    dx = _quotients(ax, aw, bx, bw, bw + 1e-16)
    return _length(dx, _quotients(ay, ah, by, bh, bh + 1e-16))


def error_of_difference(
    ax: float, ay: float, aw: float, ah: float, bx: float, by: float, bw: float, bh: float
) -> float:
    """The difference of centres over the annotated size, at least one pixel (got10k master)."""
    dx = _difference(ax, aw, bx, bw, 1.0 if bw < 1.0 else bw)
    return _length(dx, _difference(ay, ah, by, bh, 1.0 if bh < 1.0 else bh))


def quotient_of_difference(
    ax: float, ay: float, aw: float, ah: float, bx: float, by: float, bw: float, bh: float
) -> float:
    """The difference of centres over the annotated size (TrackingNet)."""
    return _length(_difference(ax, aw, bx, bw, bw), _difference(ay, ah, by, bh, bh))


def find_whole(x: Floats, y: Floats, w: Floats, h: Floats, whole: NDArray[np.bool_]) -> None:
    """Tell which rows of (R, N) boxes hold no NaN place and no box without an area."""
    for row in range(x.shape[0]):
        bad = 0
        for frame in range(x.shape[1]):
            seen = (x[row, frame] == x[row, frame]) & (y[row, frame] == y[row, frame])
            bad += not (seen & (w[row, frame] > 0.0) & (h[row, frame] > 0.0))
        whole[row] = bad == 0


def count_exceeded(
    values: Floats, thresholds: Floats, scale: float, unknown: int, counts: Counts
) -> None:
    """Count, in each row, the values that exceed each threshold.

    A product guesses the highest threshold that a value may exceed; a comparison with that very
    threshold settles it.

    Args:
        values: (R, N) measurements.
        thresholds: (T,) rising.
        scale: Makes the guess of a value; never too low, and too high by one at most.
        unknown: What NaN counts as having exceeded: 0 or T thresholds.
        counts: (R, T + 1) zeros; becomes how many values exceed at least 0, 1, ... T thresholds.
    """
    last = len(thresholds) - 1
    for row in range(values.shape[0]):
        for frame in range(values.shape[1]):
            value = values[row, frame]
            guess = value * scale
            guess = guess if guess > 0.0 else 0.0
            place = int(guess) if guess < last else last
            place += value > thresholds[place]
            place = place if value == value else unknown
            counts[row, place] += 1
        for place in range(last, -1, -1):
            counts[row, place] += counts[row, place + 1]


@cache
def array_function(rule: Callable[..., float]) -> Callable[..., Floats]:
    """Make a function of arrays that broadcasts, with ``out=``, of a rule for one frame."""
    signature = f"float64({', '.join(['float64'] * 8)})"  # two boxes
    return _compiled(lambda kept: numba.vectorize([signature], cache=kept)(rule))  # type: ignore[no-any-return, no-untyped-call]


@cache
def counter() -> Callable[[Floats, Floats, float, int, Counts], None]:
    """Return :func:`count_exceeded`, compiled."""
    signature = "void(float64[:, ::1], float64[::1], float64, intp, intp[:, ::1])"
    return _compiled(lambda kept: numba.njit(signature, cache=kept)(count_exceeded))  # type: ignore[no-any-return]


@cache
def whole_rows() -> Callable[..., None]:
    """Return :func:`find_whole`, compiled."""
    column = "float64[:, ::1]"
    signature = f"void({column}, {column}, {column}, {column}, boolean[::1])"
    return _compiled(lambda kept: numba.njit(signature, cache=kept)(find_whole))  # type: ignore[no-any-return]


def _compiled(compile_: Callable[[bool], Any]) -> Any:  # noqa: ANN401  (Numba has no types)
    try:
        return compile_(True)
    except RuntimeError:  # there is no folder to keep it in: compile for this process alone
        return compile_(False)

"""Where the name of each point of a scatter plot goes, so that no two lie over one another."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

PLACES = (
    "top center",
    "bottom center",
    "middle right",
    "middle left",
    "top right",
    "top left",
    "bottom right",
    "bottom left",
)
"""The places beside a point, best first; plotly's words."""
_CHARACTER, _LINE, _MARK = 6.5, 14.0, 8.0
"""Pixels: width of a letter, height of a line, half of a mark with some air."""


class Range(NamedTuple):
    """The part of an axis that is shown."""

    low: float
    high: float


def sensible_range(values: Iterable[float], *, from_zero: bool) -> Range:
    """Return a range with room for names around the values.

    Args:
        values: What is shown.
        from_zero: Start at 0, unless everything would then lie in the far third.
    """
    known = list(values)
    if not known:
        return Range(0.0, 1.0)
    low, high = min(known), max(known)
    if from_zero and low < 2 / 3 * high:
        return Range(0.0, high * 1.12)
    span = (high - low) or abs(high) or 1.0
    return Range(low - 0.15 * span, high + 0.15 * span)


def place(
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    ranges: tuple[Range, Range],
    size: tuple[float, float] = (620.0, 340.0),
) -> list[str | None]:
    """Choose a place for every name.

    Args:
        points: (x, y) of the points, in the order in which they may choose.
        names: Of the points.
        ranges: Of both axes.
        size: Width and height of the plot in pixels.

    Returns:
        For each point one of :data:`PLACES`, or None where no place is free: such a name is better
        left out than unreadable.
    """
    pixels = [
        tuple(
            (value - part.low) / ((part.high - part.low) or 1.0) * length
            for value, part, length in zip(point, ranges, size, strict=True)
        )
        for point in points
    ]
    taken = [(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in pixels]
    chosen: list[str | None] = []
    for (x, y), name in zip(pixels, names, strict=True):
        box = own = None
        for own in PLACES:
            box = _box(x, y, own, len(name))
            inside = box[0] >= 0 and box[2] <= size[0] and box[1] >= 0 and box[3] <= size[1]
            if inside and not any(_overlap(box, other) for other in taken):
                break
        else:
            box = own = None
        chosen.append(own)
        if box is not None:
            taken.append(box)
    return chosen


def _box(x: float, y: float, where: str, letters: int) -> tuple[float, float, float, float]:
    width, gap = _CHARACTER * letters, _MARK + 1
    up, side = where.split()
    left = {"left": x - gap - width, "center": x - width / 2, "right": x + gap}[side]
    low = {"top": y + gap, "middle": y - _LINE / 2, "bottom": y - gap - _LINE}[up]
    return left, low, left + width, low + _LINE


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]

"""Regions as VOT writes them: one line of text each."""

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.datasets.frames import LARGEST_IMAGE


def region_box(text: str) -> tuple[float, float, float, float] | None:
    """Give a region's extent as x, y, w, h in pixels.

    Args:
        text: ``code``, ``x,y,w,h``, ``x1,y1,x2,y2,...`` (three corners or more), or
            ``mX,Y,W,H,n0,n1,...``: a mask's window and its run lengths, row by row, zeros first.

    Returns:
        None where the region is not known: a code, NaN, or a mask without a pixel.

    Raises:
        ValueError: The line is none of these.
    """
    text = text.strip()
    if text[:1] in "mM":
        return _mask_box([int(value) for value in text[1:].split(",")])
    values = np.array([float(value) for value in text.replace(";", ",").split(",")])
    if len(values) == 1 or np.isnan(values).any():
        return None
    if len(values) == 4:
        x, y, w, h = values.tolist()
        return x, y, w, h
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"{len(values)} numbers are neither a rectangle nor a polygon")
    xs, ys = values[::2], values[1::2]
    x, y = float(xs.min()), float(ys.min())
    return x, y, float(xs.max()) - x, float(ys.max()) - y


def _mask_box(values: list[int]) -> tuple[float, float, float, float] | None:
    if len(values) < 4 or min(values[2:4]) < 0:
        raise ValueError("a mask starts with its window: mX,Y,W,H")
    x, y, width, height = values[:4]
    if width * height > LARGEST_IMAGE:
        raise ValueError(f"a mask of {width}x{height} is larger than any image")
    mask = _filled(values[4:], width * height).reshape(height, width)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return None
    left, top = int(columns[0]), int(rows[0])
    return (
        float(x + left),
        float(y + top),
        float(columns[-1] - left + 1),
        float(rows[-1] - top + 1),
    )


def _filled(runs: list[int], size: int) -> NDArray[np.bool_]:
    """Unpack run lengths that start with zeros; what they leave is zero."""
    if sum(runs) > size or any(run < 0 for run in runs):
        raise ValueError("the mask's runs are longer than its window")
    filled = np.zeros(size, bool)
    position = 0
    for number, run in enumerate(runs):
        filled[position : position + run] = number % 2 == 1
        position += run
    return filled

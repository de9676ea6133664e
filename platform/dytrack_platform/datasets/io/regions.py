"""VOT's regions, as text and as what they cover.

A line of a VOT file is one region: one number is a code, four are a rectangle, six or more a
polygon, and ``m...`` a mask in run lengths.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dytrack_model.image_headers import LARGEST_IMAGE
from dytrack_platform.datasets.io.text import number

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

UNKNOWN, INITIALISATION, FAILURE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Special:
    """A code in place of a region: 0 unknown, 1 initialisation, 2 failure."""

    code: int
    from_nan: bool = False
    """Whether the file has NaN coordinates there, which pysot reads as a region."""


@dataclass(frozen=True, slots=True)
class Rectangle:
    """x, y, w, h in pixels."""

    x: float
    y: float
    w: float
    h: float


@dataclass(frozen=True, slots=True)
class Polygon:
    """(P, 2) corners in pixels."""

    corners: Floats


@dataclass(frozen=True, slots=True)
class Raster:
    """Pixels of a window whose first column and row are ``x`` and ``y``."""

    x: int
    y: int
    pixels: Mask


Region = Special | Rectangle | Polygon | Raster


def parse_region(line: str) -> Region:
    """Read one region; a rectangle or polygon with NaN is unknown.

    Args:
        line: ``code``, ``x,y,w,h``, ``x1,y1,x2,y2,...`` (three corners or more), or
            ``mX,Y,W,H,n0,n1,...``: a mask's window and its run lengths, row by row, zeros first.

    Raises:
        ValueError: The line is none of the four kinds.
    """
    line = line.strip()
    try:
        if line[:1] in ("m", "M"):
            x, y, w, h, *runs = (int(part) for part in line[1:].split(","))
            return mask_from_runs(x, y, w, h, runs)
        numbers = [number(part.strip()) for part in line.replace(";", ",").split(",")]
    except ValueError as error:
        raise ValueError(f"expected a VOT region, got {line!r:.60} ({error})") from None
    if len(numbers) == 1:
        if not numbers[0].is_integer():
            raise ValueError(f"expected a VOT region, got {line!r:.60} (a code is a whole number)")
        return Special(int(numbers[0]))
    if np.isnan(numbers).any():
        return Special(UNKNOWN, from_nan=True)
    if len(numbers) == 4:
        return Rectangle(*numbers)
    if len(numbers) >= 6 and len(numbers) % 2 == 0:
        return Polygon(np.array(numbers).reshape(-1, 2))
    raise ValueError(f"expected 1, 4 or an even number of 6 or more values, got {len(numbers)}")


def mask_from_runs(x: int, y: int, w: int, h: int, runs: Sequence[int]) -> Raster:
    """Build a mask from row-major run lengths inside its window, the first of zeros.

    Pixels after the last run are zero.

    Raises:
        ValueError: The window has a negative side or is larger than any image, or the runs are
            longer than the window.
    """
    if min(w, h) < 0:
        raise ValueError(f"a mask's window must have an area, got {w}x{h}")
    if w * h > LARGEST_IMAGE:
        raise ValueError(f"a mask of {w}x{h} is larger than any image")
    if sum(runs) > w * h or any(run < 0 for run in runs):
        raise ValueError("the mask's runs are longer than its window")
    flat = np.zeros(w * h, dtype=np.bool_)
    ones = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    flat[: len(ones)] = ones
    return Raster(x, y, flat.reshape(h, w))


def region_box(region: Region) -> tuple[float, float, float, float] | None:
    """Return a region's extent as x, y, w, h in pixels; None for a code or an empty mask."""
    if isinstance(region, Rectangle):
        return region.x, region.y, region.w, region.h
    if isinstance(region, Polygon):
        low, high = region.corners.min(axis=0).tolist(), region.corners.max(axis=0).tolist()
        return low[0], low[1], high[0] - low[0], high[1] - low[1]
    if isinstance(region, Special) or not region.pixels.any():
        return None
    rows = np.flatnonzero(region.pixels.any(axis=1)).tolist()
    columns = np.flatnonzero(region.pixels.any(axis=0)).tolist()
    return (
        float(region.x + columns[0]),
        float(region.y + rows[0]),
        float(columns[-1] - columns[0] + 1),
        float(rows[-1] - rows[0] + 1),
    )

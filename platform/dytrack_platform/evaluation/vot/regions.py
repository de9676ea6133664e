"""The overlap of VOT's regions on a grid of pixels.

Regions are compared as sets of pixels after rounding, so a rectangle of 20 x 20 covers 400 pixels
while the polygon through the same corners covers 441.
"""

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.datasets.io.regions import Polygon, Raster, Rectangle, Region, Special
from dytrack_platform.errors import ResultError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Bounds = tuple[int, int] | None
"""Width and height of the image, or None not to clip."""


def is_empty(region: Region) -> bool:
    """Say whether there is nothing to overlap with."""
    if isinstance(region, Rectangle):
        return region.w <= 0 or region.h <= 0
    if isinstance(region, Raster):
        return not region.pixels.any()
    return isinstance(region, Special)


def overlap(a: Region, b: Region, bounds: Bounds = None) -> float:
    """Intersection over union on vot-toolkit 0.7.4's pixel grid.

    Two codes overlap by 1, a code and a region by 0. Where the union spans a single column or
    row, or nothing at all, the toolkit gives 1 (or 0 where both lie outside the image).

    Args:
        a: One region.
        b: The other one.
        bounds: Image size; pixels outside it do not count.
    """
    if isinstance(a, Special) or isinstance(b, Special):
        return float(isinstance(a, Special) and isinstance(b, Special))
    windows = [_window(region) for region in (a, b)]
    if bounds is not None:
        windows = [_clipped(window, bounds) for window in windows]
    x0, y0 = (min(w[k] for w in windows) for k in (0, 1))
    x1, y1 = (max(w[k] for w in windows) for k in (2, 3))
    if all(w[2] < w[0] or w[3] < w[1] for w in windows) and bounds is not None:
        return 0.0
    if x0 >= x1 or y0 >= y1:
        return 1.0
    first, second = (_raster(region, (x0, y0, x1, y1)) for region in (a, b))
    union = int(np.count_nonzero(first | second))
    return float(np.count_nonzero(first & second) / union) if union else 0.0


Window = tuple[int, int, int, int]
"""First column and row, last column and row."""


def _window(region: Region) -> Window:
    """Pixels that a region spans; halves round to even."""
    if isinstance(region, Rectangle):
        x, y, w, h = (int(np.round(v)) for v in (region.x, region.y, region.w, region.h))
        return x, y, x + w - 1, y + h - 1
    if isinstance(region, Polygon):
        low, high = region.corners.min(axis=0), region.corners.max(axis=0)
        x0, y0, x1, y1 = (int(np.round(v)) for v in (*low, *high))
        return x0, y0, x1, y1
    assert isinstance(region, Raster)
    height, width = region.pixels.shape
    return region.x, region.y, region.x + width - 1, region.y + height - 1


def _clipped(window: Window, bounds: tuple[int, int]) -> Window:
    width, height = bounds
    x0, y0, x1, y1 = window
    return max(x0, 0), max(y0, 0), min(x1, width - 1), min(y1, height - 1)


def _raster(region: Region, window: Window) -> Mask:
    """Set the pixels of a region inside a window."""
    x0, y0, x1, y1 = window
    pixels = np.zeros((y1 - y0 + 1, x1 - x0 + 1), dtype=np.bool_)
    if isinstance(region, Polygon):
        fill_polygon(pixels, np.round(region.corners) - (x0, y0), apexes=True)
        return pixels
    left, top, right, bottom = _window(region)
    from_x, from_y = max(left - x0, 0), max(top - y0, 0)
    # The toolkit compares these two with the window's last column and row, not with its size: to
    # the right of a window that begins left of the image pixels are lost (unbounded regions only).
    to_x, to_y = min(right - x0, x1) + 1, min(bottom - y0, y1) + 1
    if from_x >= to_x or from_y >= to_y:
        return pixels
    if isinstance(region, Raster):
        ours = region.pixels[max(y0 - top, 0) :, max(x0 - left, 0) :]
        height, width = (
            min(a, b) for a, b in zip(ours.shape, pixels[from_y:, from_x:].shape, strict=True)
        )
        pixels[from_y : from_y + height, from_x : from_x + width] = ours[:height, :width]
    else:
        pixels[from_y:to_y, from_x:to_x] = True
    return pixels


def fill_polygon(pixels: Mask, corners: Floats, *, apexes: bool) -> None:
    """Set the pixels of a polygon whose corners are whole numbers, border included.

    Args:
        pixels: (H, W) changed in place.
        corners: (P, 2) in the window's own columns and rows.
        apexes: Whether a row that the polygon touches in one point gets its pixel:
            vot-toolkit's rule; pysot's copy of the code leaves it out.
    """
    begin, end = corners, np.roll(corners, 1, axis=0)
    rise = end[:, 1] - begin[:, 1]
    low, high = np.minimum(begin[:, 1], end[:, 1]), np.maximum(begin[:, 1], end[:, 1])
    height, width = pixels.shape
    for row in range(max(0, int(corners[:, 1].min())), min(height, int(corners[:, 1].max()) + 1)):
        crossed = (low <= row) & (row <= high) & (rise != 0)
        along = (row - begin[crossed, 1]) / rise[crossed]
        cuts = begin[crossed, 0] + along * (end[crossed, 0] - begin[crossed, 0])
        nodes = np.sort(np.trunc(cuts).astype(np.int64))
        k = 0
        while k < len(nodes) - 1:
            last_pair = k >= len(nodes) - 2
            if nodes[k] == nodes[k + 1] and not (apexes and last_pair):
                k += 1  # a corner on this row is met by both of its edges
                continue
            pixels[row, max(0, nodes[k]) : max(0, min(width, nodes[k + 1] + 1))] = True
            k += 2


def polygon_overlap(a: Region, b: Region, bounds: tuple[float, float] | None = None) -> float:
    """Overlap as in pysot's region.c: rectangles become polygons one pixel larger.

    Args:
        a: A rectangle or polygon; a code gives NaN.
        b: The other one.
        bounds: Largest column and row, or None not to clip.

    Raises:
        ResultError: A region is a mask, which pysot cannot read.
    """
    if isinstance(a, Raster) or isinstance(b, Raster):
        raise ResultError("pysot cannot read masks; use vot-supervised")
    if isinstance(a, Special) or isinstance(b, Special):
        nan = any(isinstance(region, Special) and region.from_nan for region in (a, b))
        return 0.0 if nan else float("nan")
    first, second = _as_polygon(a), _as_polygon(b)
    low = np.stack([first.min(axis=0), second.min(axis=0)])
    high = np.stack([first.max(axis=0), second.max(axis=0)])
    if bounds is not None:
        low, high = np.maximum(low, 0), np.minimum(high, bounds)
    shared = high.min(axis=0) - low.max(axis=0)
    areas = np.prod(high - low, axis=1)
    if (shared <= 0).any() and areas.any():
        return 0.0  # windows that only touch are apart
    low, high = _round(low), _round(high)
    corner = low.min(axis=0)
    width, height = (high.max(axis=0) - corner + 1).astype(int)
    masks = np.zeros((2, max(height, 0), max(width, 0)), dtype=np.bool_)
    for mask, corners in zip(masks, (first, second), strict=True):
        fill_polygon(mask, _round(corners) - corner, apexes=False)
    union = int(np.count_nonzero(masks[0] | masks[1]))
    return float(np.count_nonzero(masks[0] & masks[1]) / union) if union else float("nan")


def _as_polygon(region: Rectangle | Polygon) -> Floats:
    if isinstance(region, Polygon):
        return region.corners
    x0, y0, x1, y1 = region.x, region.y, region.x + region.w, region.y + region.h
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=np.float64)


def _round(values: Floats) -> Floats:
    """Round halves away from zero, as C does."""
    return np.sign(values) * np.floor(np.abs(values) + 0.5)

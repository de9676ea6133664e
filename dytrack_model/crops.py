"""Template and search crops: one function for training and for tracking.

Coordinates are continuous: pixel ``i`` covers ``[i, i + 1)``, so a box ``x, y, w, h`` spans
``[x, x + w)``. A crop is a square of the image, resampled without rounding its corner, so that a
box mapped into a crop and back is the same box.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from dytrack_model.errors import BoxError

Pixels = NDArray[np.uint8]
Box = NDArray[np.float64]


def crop_side(box_xywh: Sequence[float] | Box, factor: float) -> float:
    """Return the side of the square crop around a box, in pixels.

    Source: OSTrack, ``ceil(sqrt(w h) factor)``.
    """
    return float(math.ceil(math.sqrt(float(box_xywh[2]) * float(box_xywh[3])) * factor))


def centre(box_xywh: Sequence[float] | Box) -> tuple[float, float]:
    """Return the centre of a box in pixels."""
    return (
        float(box_xywh[0]) + 0.5 * float(box_xywh[2]),
        float(box_xywh[1]) + 0.5 * float(box_xywh[3]),
    )


def crop(image: Pixels, centre_xy: tuple[float, float], side: float, size: int) -> Pixels:
    """Cut a square and resample it bilinearly; what lies outside the image is black.

    Args:
        image: (H, W, 3) uint8.
        centre_xy: Centre of the square in pixels.
        side: Side of the square in pixels, at least 1.
        size: Side of the result in pixels.

    Returns:
        (size, size, 3) uint8.
    """
    scale = side / size
    # Maps the centre of a result pixel to a position in the image; cv2 counts from pixel centres.
    left = centre_xy[0] - 0.5 * side + 0.5 * scale - 0.5
    top = centre_xy[1] - 0.5 * side + 0.5 * scale - 0.5
    matrix = np.array([[scale, 0.0, left], [0.0, scale, top]])
    return cv2.warpAffine(  # type: ignore[return-value]
        image,
        matrix,
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
    )


def box_to_crop(
    box_xywh: Sequence[float] | Box, centre_xy: tuple[float, float], side: float
) -> Box:
    """Map a box from the image (pixels) into a crop.

    Returns:
        (4,) ``cx, cy, w, h`` in [0, 1] of the crop where the box lies inside it.
    """
    x, y = centre(box_xywh)
    return np.array(
        [
            (x - centre_xy[0]) / side + 0.5,
            (y - centre_xy[1]) / side + 0.5,
            float(box_xywh[2]) / side,
            float(box_xywh[3]) / side,
        ]
    )


def box_from_crop(
    box_cxcywh: Sequence[float] | Box, centre_xy: tuple[float, float], side: float
) -> Box:
    """Map a box from a crop ([0, 1], ``cx, cy, w, h``) into the image.

    Returns:
        (4,) ``x, y, w, h`` in pixels.
    """
    cx, cy, w, h = (float(value) * side for value in box_cxcywh)
    left = centre_xy[0] - 0.5 * side
    top = centre_xy[1] - 0.5 * side
    return np.array([left + cx - 0.5 * w, top + cy - 0.5 * h, w, h])


LEAST_SIDE = 2.0
"""Pixels of the frame below which no side of a tracked box falls: a smaller one has no crop that
shows anything."""


_MOST_IMAGES = 4
"""Images beside each other that a given box may span: targets reach outside, but not far."""


def clip_box(box_xywh: Box, width: int, height: int, margin: float = 10.0) -> Box:
    """Keep at least ``margin`` pixels of a box inside the image, and the whole of a smaller one.

    From ``margin`` on the rule is OSTrack's. There a smaller box grows to the margin, so that a
    target of five pixels is followed with four times its area.
    """
    w, h = max(LEAST_SIDE, float(box_xywh[2])), max(LEAST_SIDE, float(box_xywh[3]))
    x1 = float(box_xywh[0]) - 0.5 * (w - float(box_xywh[2]))
    y1 = float(box_xywh[1]) - 0.5 * (h - float(box_xywh[3]))
    x2, y2 = x1 + w, y1 + h
    margin_x, margin_y = min(margin, w, 0.5 * width), min(margin, h, 0.5 * height)
    x1 = min(max(0.0, x1), width - margin_x)
    x2 = min(max(margin_x, x2), float(width))
    y1 = min(max(0.0, y1), height - margin_y)
    y2 = min(max(margin_y, y2), float(height))
    return np.array([x1, y1, max(margin_x, x2 - x1), max(margin_y, y2 - y1)])


def check_box(box_xywh: Sequence[float] | Box, size: tuple[int, int]) -> Box:
    """Return a target's box (4,) as an array.

    Raises:
        BoxError: It has NaN or no area, lies outside the image of that width and height or within
            its first pixel, or is many times as large; or these are none.
    """
    try:
        box = np.array(box_xywh, dtype=np.float64)  # a copy: callers use one array again
    except (TypeError, ValueError) as error:
        raise BoxError(f"a box is four numbers x, y, w, h; got {box_xywh!r}") from error
    if box.shape != (4,):
        raise BoxError(f"a box is four numbers x, y, w, h; got shape {box.shape}")
    try:
        width, height = (int(length) for length in size)
    except (TypeError, ValueError) as error:
        raise BoxError(f"an image's size is its width and height, got {size!r}") from error
    shown = ", ".join(f"{value:g}" for value in box)
    if not np.isfinite(box).all():
        raise BoxError(f"box ({shown}) holds NaN or infinity; give x, y, w, h in pixels")
    if box[2] <= 0 or box[3] <= 0:
        raise BoxError(f"box ({shown}) has no area: width and height must be positive")
    if box[0] >= width or box[1] >= height or box[0] + box[2] <= 0 or box[1] + box[3] <= 0:
        raise BoxError(f"box ({shown}) lies outside the image of {width}x{height} pixels")
    if box.max() < 1:
        raise BoxError(
            f"box ({shown}) lies within one pixel of an image of {width}x{height} pixels; give "
            "x, y, w, h in pixels, not as shares of the image"
        )
    if box[2] > _MOST_IMAGES * width or box[3] > _MOST_IMAGES * height:
        raise BoxError(
            f"box ({shown}) is many times as large as the image of {width}x{height} pixels; give "
            "x, y, w, h in pixels"
        )
    return box


def share_inside(box_xywh: Sequence[float] | Box, size: tuple[int, int]) -> float:
    """Return the share of a box's area that lies inside an image of that width and height."""
    parts = [
        max(0.0, min(start + length, whole) - max(start, 0.0)) / length
        for start, length, whole in zip(box_xywh[:2], box_xywh[2:], size, strict=True)
    ]
    return float(parts[0] * parts[1])

"""Context windows: the part of a frame that any training crop of its target can show.

A window is the square around the target that the largest jittered search crop fits in, cut at
the image's border (what lies beyond is black in a crop anyway) and resampled so that an
unjittered search crop of it has about ``search_size`` pixels. Small targets are not enlarged.
"""

import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import cv2
import numpy as np

from dytrack_model.config import (
    AtLeastOne,
    Bounds,
    NotNegative,
    NotNegativeFloat,
    check_bounds,
    require,
)
from dytrack_platform.datasets.sequence import Boxes, Pixels
from dytrack_platform.errors import DataError

JITTER_LIMIT = 2.0
"""Scale jitter is cut at this many standard deviations, so that a window has a bound."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipConfig:
    """What is cut out of a sequence and how it is stored."""

    frames: AtLeastOne = 16
    """Frames in a clip."""
    span: AtLeastOne = 200
    """Frames of the sequence that a clip spreads over; a pair never spans more."""
    search_size: AtLeastOne = 256
    """Pixels of a search crop's side that a window can serve."""
    search_factor: Annotated[float, Bounds(low=1)] = 4.0
    """Side of the search crop over the square root of the target's area."""
    centre_jitter: NotNegativeFloat = 3.0
    """Largest ``data.centre_jitter`` that training may use."""
    scale_jitter: NotNegativeFloat = 0.25
    """Largest ``data.scale_jitter`` that training may use."""
    quality: Annotated[int, Bounds(low=1, high=100)] = 90
    """JPEG quality of the windows."""
    smallest_side: NotNegativeFloat = 0.0
    """Targets with a shorter side below this many pixels are not used (OSTrack: 50 for COCO)."""
    sequences_per_shard: NotNegative = 0
    """Sequences in a file, about; 0 chooses by their length."""

    def __post_init__(self) -> None:
        check_bounds(self)
        require(
            self.span >= self.frames,
            f"span: must be at least frames ({self.frames}), got {self.span}",
        )

    @property
    def window_factor(self) -> float:
        """Side of a window over the square root of the target's area."""
        return window_factor(self.search_factor, self.centre_jitter, self.scale_jitter)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def window_factor(search_factor: float, centre_jitter: float, scale_jitter: float) -> float:
    """Return the side, over the root of the target's area, that every jittered crop fits in."""
    return search_factor * math.exp(JITTER_LIMIT * scale_jitter) + centre_jitter


@dataclass(frozen=True, slots=True)
class Window:
    """A window as it is stored."""

    jpeg: bytes
    box_xywh: tuple[float, float, float, float]
    """The target in pixels of the window."""
    scale: float
    """Pixels of the window for one of the frame."""
    origin_xy: tuple[float, float]
    """The window's corner in pixels of the frame."""


def cut_window(frame: Pixels, box_xywh: Boxes, config: ClipConfig) -> Window:
    """Cut the window around a target.

    Args:
        frame: (H, W, 3) uint8, red first.
        box_xywh: (4,) pixels of the frame, finite, with an area.
        config: Size and quality.

    Raises:
        DataError: The window misses the frame, because the box lies far outside of it.
    """
    x, y, w, h = (float(value) for value in box_xywh)
    root = math.sqrt(w * h)
    # Room for the largest jitter: training must never see black where tracking would see the image.
    half = 0.5 * config.window_factor * root
    height, width = frame.shape[:2]
    left, right = _part(x + 0.5 * w, half, width)
    top, bottom = _part(y + 0.5 * h, half, height)
    if left >= right or top >= bottom:
        raise DataError(
            f"the box {x:g},{y:g},{w:g},{h:g} lies outside of its image of {width}x{height}"
        )
    scale = min(1.0, config.search_size / (config.search_factor * root))
    pixels: cv2.typing.MatLike = frame[top:bottom, left:right]
    if scale < 1.0:
        size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
        # The same plain bilinear sampling as a tracking crop, so that training sees its grain.
        shift = 0.5 / scale - 0.5
        matrix = np.array([[1 / scale, 0, shift], [0, 1 / scale, shift]])
        pixels = cv2.warpAffine(
            pixels,
            matrix,
            size,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, config.quality])
    box = ((x - left) * scale, (y - top) * scale, w * scale, h * scale)
    return Window(encoded.tobytes(), box, scale, (float(left), float(top)))


def _part(centre: float, half: float, extent: int) -> tuple[int, int]:
    """Return the first and the past-the-last pixel of an interval inside an image's side."""
    return max(0, math.floor(centre - half)), min(extent, math.ceil(centre + half))

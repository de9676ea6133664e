"""Decode frames that strangers send: bounded before anything is decoded."""

import cv2
import numpy as np

from dytrack_model.crops import crop_side
from dytrack_model.image_headers import is_cut_short, stated_size
from dytrack_model.images import RGB, decoded
from dytrack_platform.serving.limits import Limits
from dytrack_platform.serving.messages import Refused


def decode(data: bytes, limits: Limits) -> RGB:
    """Decode a JPEG or PNG.

    Raises:
        Refused: It is something else, damaged, cut short, or larger than allowed.
    """
    if len(data) > limits.frame_bytes:
        raise Refused("too_large", f"a frame has at most {limits.frame_bytes} bytes")
    if data[:2] != b"\xff\xd8" and data[:4] != b"\x89PNG":
        raise Refused("image", "a frame must be a JPEG or a PNG")
    size = stated_size(data)
    if size is None or min(size) < 1:
        raise Refused("image", "the frame's header is damaged")
    if size[0] * size[1] > limits.pixels:
        raise Refused(
            "too_large", f"a frame has at most {limits.pixels} pixels, this has {size[0]}x{size[1]}"
        )
    if is_cut_short(data):
        raise Refused("image", "the frame is cut short")
    pixels = decoded(data, cv2.IMREAD_COLOR)
    if pixels is None:
        raise Refused("image", "the frame does not decode")
    return RGB.from_bgr(np.asarray(pixels, np.uint8))


class Origin:
    """What a target was started from: the part of its first frame that its template needs.

    It is kept, so that the target can be started again on another model or another server.
    Whole pixels are cut, and black beyond the frame stays black beyond the cut: the template is
    the same, for models whose template is not much larger. A target much larger than the template
    is kept at a smaller scale, so that the tokens of many such targets stay small.

    Args:
        png: The cut-out.
        box_xywh: (4,) the target in it.
    """

    _MARGIN = 4.0
    _SCALE = 2.5
    """Most pixels that are kept along a side for each of the template's."""

    def __init__(self, png: bytes, box_xywh: tuple[float, ...]) -> None:
        self.png, self.box_xywh = png, box_xywh

    @classmethod
    def cut(cls, image: RGB, box_xywh: tuple[float, ...], factor: float, side: int) -> "Origin":
        """Cut a target out of its first frame.

        Args:
            image: The frame.
            box_xywh: (4,) the target in pixels.
            factor: Side of the template's crop over the target's.
            side: Side of the template in pixels.
        """
        x, y, w, h = box_xywh
        half = 0.5 * crop_side(box_xywh, max(factor, 2.0)) + cls._MARGIN
        width, height = image.size
        # A box's middle may lie beyond the frame: at least a pixel is cut.
        left, right = _within(x + 0.5 * w, half, width)
        top, bottom = _within(y + 0.5 * h, half, height)
        part = np.ascontiguousarray(image.pixels[top:bottom, left:right, ::-1])
        shrink = min(1.0, cls._SCALE * side / (2 * half))
        size = tuple(max(1, round(shrink * length)) for length in (right - left, bottom - top))
        if shrink < 1:
            part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
        across, down = size[0] / (right - left), size[1] / (bottom - top)
        _, encoded = cv2.imencode(".png", part)
        box = ((x - left) * across, (y - top) * down, w * across, h * down)
        return cls(encoded.tobytes(), box)

    def image(self) -> RGB:
        """Decode the cut-out.

        Raises:
            Refused: It is damaged.
        """
        return decode(self.png, Limits())


def _within(middle: float, half: float, length: int) -> tuple[int, int]:
    """Return the whole pixels of a row or column around a point, at least one of them."""
    first = min(max(0, int(middle - half)), length - 1)
    return first, max(first + 1, min(length, int(middle + half) + 1))

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
    the same, for models whose template is not much larger.

    Args:
        png: The cut-out.
        box_xywh: (4,) the target in it.
    """

    _MARGIN = 4.0

    def __init__(self, png: bytes, box_xywh: tuple[float, ...]) -> None:
        self.png, self.box_xywh = png, box_xywh

    @classmethod
    def cut(cls, image: RGB, box_xywh: tuple[float, ...], factor: float) -> "Origin":
        """Cut a target out of its first frame.

        Args:
            image: The frame.
            box_xywh: (4,) the target in pixels.
            factor: Side of the template's crop over the target's.
        """
        x, y, w, h = box_xywh
        half = 0.5 * crop_side(box_xywh, max(factor, 2.0)) + cls._MARGIN
        width, height = image.size
        left, top = (max(0, int(v - half)) for v in (x + 0.5 * w, y + 0.5 * h))
        right = min(width, int(x + 0.5 * w + half) + 1)
        bottom = min(height, int(y + 0.5 * h + half) + 1)
        part = np.ascontiguousarray(image.pixels[top:bottom, left:right, ::-1])
        _, encoded = cv2.imencode(".png", part)
        return cls(encoded.tobytes(), (x - left, y - top, w, h))

    def image(self) -> RGB:
        """Decode the cut-out.

        Raises:
            Refused: It is damaged.
        """
        return decode(self.png, Limits())

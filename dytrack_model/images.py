"""The one image type of the public interface: channels are named when the image is made."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dytrack_model.errors import ImageError


@dataclass(frozen=True, slots=True)
class RGB:
    """An image whose channel order is known: red, green, blue.

    The tracker takes nothing else, so that a frame from OpenCV (blue first) cannot reach it
    unnoticed: such a frame becomes an image through :meth:`from_bgr`.

    Attributes:
        pixels: (H, W, 3) uint8, red first.

    Raises:
        ImageError: The array has another type or shape.
    """

    pixels: NDArray[np.uint8]

    def __post_init__(self) -> None:
        pixels = self.pixels
        if not isinstance(pixels, np.ndarray):
            raise ImageError(f"an image must be a numpy array, got {type(pixels).__name__}")
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ImageError(
                "an image must be uint8 of shape (H, W, 3), "
                f"got {pixels.dtype} of shape {pixels.shape}"
            )
        if 0 in pixels.shape:
            raise ImageError(f"an image must not be empty, got shape {pixels.shape}")

    @classmethod
    def from_bgr(cls, pixels: NDArray[np.uint8]) -> "RGB":
        """Take a frame as OpenCV gives it: (H, W, 3) uint8, blue first."""
        checked = cls(pixels)
        return cls(np.asarray(cv2.cvtColor(checked.pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8))

    @classmethod
    def open(cls, path: str | Path) -> "RGB":
        """Read an image file.

        Raises:
            ImageError: The file is missing or does not decode.
        """
        path = Path(path)
        if not path.is_file():
            raise ImageError(f"{path}: no such image file")
        encoded = np.fromfile(path, dtype=np.uint8)
        pixels = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
        if pixels is None:
            raise ImageError(f"{path}: does not decode as an image")
        return cls.from_bgr(np.asarray(pixels, dtype=np.uint8))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = self.pixels.shape[:2]
        return width, height

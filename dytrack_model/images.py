"""Images and videos as the tracker takes them: the order of their channels is always known."""

import mmap
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from dytrack_model.errors import ImageError
from dytrack_model.image_headers import is_cut_short_png, stated_size, too_large

Pixels = NDArray[np.uint8]
Channels = Literal["rgb", "bgr"]
"""Which channel of an array comes first: red, or blue as OpenCV reads it."""

_COUNTED_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi")
"""Containers that count their frames. For the others the number is time times rate, and a film of
uneven rate has fewer."""
_DIGITS = re.compile(r"(\d+)", re.ASCII)
_MOST_HIDDEN_BITS = 14
"""Of 16: what uses no more is at most a quarter as bright as it should be."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True, slots=True)
class RGB:
    """An image whose channel order is known: red, green, blue.

    Inside the tracker every frame is one, so that a frame from OpenCV (blue first) cannot reach
    the network unnoticed: such a frame becomes an image through :meth:`from_bgr`.

    Attributes:
        pixels: (H, W, 3) uint8, red first.

    Raises:
        ImageError: The array has another type or shape.
    """

    pixels: Pixels

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
    def from_bgr(cls, pixels: Pixels) -> "RGB":
        """Convert a frame as OpenCV gives it: (H, W, 3) uint8, blue first."""
        checked = cls(pixels)
        return cls(np.asarray(cv2.cvtColor(checked.pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8))

    @classmethod
    def open(cls, path: str | Path, first: str | Path | None = None) -> "RGB":
        """Read an image file.

        Args:
            path: The file.
            first: The first image of its sequence: where that shows all of its 16 bits, a darker
                one is a dark frame.

        Raises:
            ImageError: The file is missing or too large, or does not decode.
        """
        path = Path(path)
        if not path.is_file():
            raise ImageError(f"{path}: no such image file")
        encoded = path.read_bytes()
        if reason := too_large(*(stated_size(encoded) or (0, 0))):
            raise ImageError(f"{path}: {reason}")
        bits = bits_used(encoded)
        if bits is not None and not (first and shows_all_bits(Path(first).read_bytes())):
            raise ImageError(
                f"{path}: uses {bits} of its 16 bits, and would be nearly black; write it with 8 "
                "bits, or with values up to 65535"
            )
        pixels = decoded(encoded, cv2.IMREAD_COLOR)
        if pixels is None:
            raise ImageError(f"{path}: does not decode as an image")
        return cls.from_bgr(np.asarray(pixels, dtype=np.uint8))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = self.pixels.shape[:2]
        return width, height


def decoded(encoded: bytes, how: int) -> NDArray[np.integer[Any] | np.floating[Any]] | None:
    """Decode an image as ``cv2.imdecode`` does, and return None for everything that it refuses.

    It has three ways of refusing: None, an exception where there is no data, and another one
    where a header tells of a size that it does not allow. A PNG that is cut short is refused here:
    it may take 4 GB of memory there.
    """
    if not encoded or is_cut_short_png(encoded):
        return None
    try:
        return cv2.imdecode(np.frombuffer(encoded, np.uint8), how)
    except cv2.error:
        return None


def bits_used(encoded: bytes) -> int | None:
    """Return how many bits a 16-bit PNG uses, where those are too few to be seen; else None.

    Thermal and medical cameras write 10 to 14 bits into 16; converted to 8 by their upper half,
    such an image is nearly black. A frame that is black altogether counts as such, too.
    """
    if not _is_deep(encoded):
        return None
    pixels = decoded(encoded, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        return None  # who decodes it says so
    used = int(pixels[..., :3].max() if pixels.ndim == 3 else pixels.max()).bit_length()
    return used if used <= _MOST_HIDDEN_BITS else None


def shows_all_bits(encoded: bytes) -> bool:
    """Say whether an image is a 16-bit PNG that is as bright as it looks."""
    return _is_deep(encoded) and bits_used(encoded) is None


def _is_deep(encoded: bytes) -> bool:
    return encoded[:8] == b"\x89PNG\r\n\x1a\n" and encoded[24:25] == b"\x10"


Frame = RGB | Pixels | str | Path
"""A frame as callers give it: an image, an array, or the path of an image file."""


def as_rgb(frame: Frame, channels: Channels = "rgb", first: str | Path | None = None) -> RGB:
    """Return a frame as an image.

    Args:
        frame: An image, an array (H, W, 3) uint8, or the path of an image file.
        channels: Order of an array's channels; the other kinds of frame know their own.
        first: As for :meth:`RGB.open`.

    Raises:
        ImageError: The frame is none of these, the file does not decode, or there is no such order.
    """
    _check(channels)
    if isinstance(frame, RGB):
        return frame
    if isinstance(frame, str | Path):
        return RGB.open(frame, first)
    if isinstance(frame, np.ndarray):
        return RGB(frame) if channels == "rgb" else RGB.from_bgr(frame)
    raise ImageError(
        f"a frame must be an array (H, W, 3) uint8, an RGB image or the path of an image file, "
        f"got {type(frame).__name__}"
    )


def _check(channels: str) -> None:
    if channels not in ("rgb", "bgr"):
        raise ImageError(f"channels: must be rgb or bgr, got {channels!r}")


class VideoReader:
    """A video file, frame by frame.

    Raises:
        ImageError: The file is missing, or OpenCV does not open it.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        if not self._path.is_file():
            raise ImageError(f"{path}: no such video file")
        # An absolute path: FFmpeg would take "word:" at the start of another for a protocol.
        self._capture = cv2.VideoCapture(str(self._path.absolute()))
        if not self._capture.isOpened():
            raise ImageError(f"{path}: {_why_not(self._path)}")
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS)) or 25.0
        self.count = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        """Frames that the file's header announces; 0 where it does not say."""

    def frames(self) -> Iterator[RGB]:
        """Yield every frame.

        Raises:
            ImageError: Fewer frames decode than the header announces, told after the last one; or
                not one does.
        """
        read, seconds = 0, 0.0
        while True:
            good, pixels = self._capture.read()
            if not good:
                break
            read += 1
            seconds = 1e-3 * self._capture.get(cv2.CAP_PROP_POS_MSEC)
            yield RGB.from_bgr(np.asarray(pixels, dtype=np.uint8))
        self._capture.release()
        if read == 0:
            raise ImageError(
                f"{self._path}: not one frame decodes; the file is damaged, or of a kind that "
                "OpenCV does not decode: give a video such as .mp4 or .avi"
            )
        counted = self._path.suffix.lower() in _COUNTED_SUFFIXES
        spare = max(2.0, (0.02 if counted else 0.2) * self.count)
        # A film of uneven rate may have half of the frames, but they last as long.
        lasted = 0.0 if counted else self.fps * seconds
        if max(read, lasted) < self.count - spare:
            raise ImageError(
                f"{self._path}: {read} of the {self.count} frames that its header announces "
                "decode; the file is cut short or damaged"
            )


def _holds(file: BinaryIO, word: bytes) -> bool:
    """Say whether a file has a word somewhere, without reading it into memory."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        return whole.find(word) >= 0


def _why_not(path: Path) -> str:
    """Say why OpenCV does not open a file, from what it begins with."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
            indexed = head[4:8] != b"ftyp" or _holds(file, b"moov")
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not head:
        return "is empty; was it copied whole?"
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "is a web page and no video; download the file itself"
    if not indexed:
        return "has no index (moov): the recording was not finished; repair it, or record again"
    return "OpenCV does not open it; give a video such as .mp4 or .avi"


def read_frames(source: str | Path | Iterable[Frame], channels: Channels = "rgb") -> Iterator[RGB]:
    """Yield the frames of a video file, of a folder of images, or of any iterable.

    Args:
        source: The file; the folder, whose images are sorted by the numbers in their names
            (``2.jpg`` before ``10.jpg``); or frames.
        channels: Order of the channels of arrays in an iterable.

    Raises:
        ImageError: Nothing there can be read, a frame is no image, or there is no such order.
    """
    _check(channels)
    if not isinstance(source, str | Path):
        if not isinstance(source, Iterable):
            raise ImageError(
                "a video must be a file, a folder of images, or an iterable of frames, got "
                f"{type(source).__name__}"
            )
        yield from (as_rgb(frame, channels) for frame in source)
    elif Path(source).is_dir():
        yield from open_images(image_files(Path(source)))
    else:
        yield from VideoReader(source).frames()


def open_images(files: Sequence[Path]) -> Iterator[RGB]:
    """Yield the images of one sequence; errors as of :meth:`RGB.open`."""
    return (RGB.open(file, files[0]) for file in files)


def image_files(source: Path | list[Path], name: str = "") -> list[Path]:
    """Return the images of a folder, or those among files, sorted by the numbers in their names.

    Args:
        source: The folder, or files.
        name: What to call files in a message.

    Raises:
        ImageError: There is none.
    """
    files = list(source.iterdir()) if isinstance(source, Path) else source
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        shown = source if isinstance(source, Path) else name
        raise ImageError(f"{shown}: holds no image ({', '.join(IMAGE_SUFFIXES)})")
    return sorted(images, key=lambda path: natural(path.name))


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """Return a key that sorts ``frame2`` before ``frame10``."""
    parts = _DIGITS.split(name)
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts if part)

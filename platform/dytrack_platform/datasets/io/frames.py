"""Where frames come from: image files, or a video file. Always RGB.

A frame that is cut short is refused, though a JPEG decoder would fill the missing part with grey:
a tracker must not learn from grey.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

import cv2

from dytrack_model.image_headers import is_cut_short, stated_size, too_large
from dytrack_model.images import bits_used, decoded, natural, shows_all_bits
from dytrack_platform.datasets.sequence import Pixels
from dytrack_platform.errors import DataError
from dytrack_platform.storage.tree import Tree

if TYPE_CHECKING:
    from tempfile import _TemporaryFileWrapper

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_NUMBERED = re.compile(r"(?P<before>.*?)(?P<number>\d+)\.[^.]+", re.ASCII)
"""A frame's file name: what all of a folder have in common, and its number."""
_MOST_MISSING = 100
"""Where more numbers than this and than the files themselves are missing, they mean something
else than frames."""
VIDEO_SUFFIXES = (".mp4", ".mpg", ".mpeg", ".avi", ".mov", ".mkv", ".webm")


def decode(data: bytes, name: str, first: Callable[[], bytes] | None = None) -> Pixels:
    """Decode an encoded image.

    Args:
        data: The file's content.
        name: Its path, for the message.
        first: Reads the first image of its sequence: where that shows all of its 16 bits, a darker
            one is a dark frame.

    Returns:
        (H, W, 3) uint8, red first; a grey image has three equal channels.

    Raises:
        DataError: The data is empty, cut short, or not an image.
    """
    if not data:
        raise DataError(f"{name}: the file is empty")
    if is_cut_short(data):
        raise DataError(f"{name}: the image is cut short")
    size = stated_size(data)
    if size is None:  # a format whose size is not known before it takes memory is not decoded
        raise DataError(f"{name}: does not decode as an image (JPEG, PNG, BMP or WebP)")
    _refuse_huge(name, *size)
    bits = bits_used(data)
    if bits is not None and not (first and shows_all_bits(first())):
        raise DataError(
            f"{name}: uses {bits} of its 16 bits, and would be nearly black; write it with 8 bits, "
            "or with values up to 65535"
        )
    pixels = decoded(data, cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise DataError(f"{name}: does not decode as an image")
    return pixels  # type: ignore[return-value]


def _refuse_huge(name: str, width: int, height: int) -> None:
    if reason := too_large(width, height):
        raise DataError(f"{name}: {reason}")


class SeparateFrames:
    """Frames each of which decodes by itself."""

    __slots__ = ()

    def __len__(self) -> int:
        raise NotImplementedError

    def read(self, index: int) -> Pixels:
        """Decode one frame to (H, W, 3) uint8, red first.

        Raises:
            DataError: It is missing, damaged or no image.
        """
        raise NotImplementedError

    def iterate(self) -> Iterator[Pixels | None]:
        """Decode every frame in order; ``None`` stands for one that does not decode."""
        for index in range(len(self)):
            try:
                pixels = self.read(index)
            except DataError:
                yield None
            else:
                yield pixels


@dataclass(frozen=True, slots=True)
class ImageFrames(SeparateFrames):
    """Frames that are image files of one folder."""

    tree: Tree
    names: tuple[str, ...]
    """File names inside the tree, in the order of the frames."""

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> str:
        """Name the file of a frame."""
        return self.tree.path(self.names[index])

    def read(self, index: int) -> Pixels:
        """Decode one frame to (H, W, 3) uint8, red first.

        Raises:
            DataError: The file is missing, cut short or not an image.
        """
        name, first = self.names[index], self.names[0]
        data = self.tree.read_bytes(name)
        return decode(data, self.tree.path(name), lambda: self.tree.read_bytes(first))


class VideoFrames:
    """Frames of a video file.

    Frames are counted by decoding from the start: seeking lands on the wrong frame in many
    encodings. Reading in rising order costs one pass; going back starts a new pass.
    """

    def __init__(self, tree: Tree, name: str, count: int) -> None:
        self._tree = tree
        self._name = name
        self._count = count
        self._capture: cv2.VideoCapture | None = None
        self._next = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return VideoFrames, (self._tree, self._name, self._count)  # the open capture stays here

    @classmethod
    def open(cls, tree: Tree, name: str, expected: int | None = None) -> "VideoFrames":
        """Open a video and count its frames.

        The file's header is believed where it says ``expected``; MPEG streams only estimate
        their length, so otherwise the frames are counted by going through them.

        Raises:
            DataError: The file is missing, is not a video, or has no frames.
        """
        capture = _capture(tree, name)
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        # The header's count is a promise of the encoder, and is wrong in many files: only decoding
        # tells. Where it agrees with the annotation that pass is spared.
        if count != expected:
            count = 0
            while capture.grab():
                count += 1
        capture.release()
        if count < 1:
            raise DataError(f"{tree.path(name)}: the video has no frames")
        return cls(tree, name, count)

    def __len__(self) -> int:
        return self._count

    def path(self, index: int) -> str:
        """Name the video and the frame."""
        return f"{self._tree.path(self._name)}#{index}"

    def read(self, index: int) -> Pixels:
        """Decode one frame to (H, W, 3) uint8, red first.

        Raises:
            DataError: The video ends before the frame, or the frame does not decode.
        """
        if not 0 <= index < self._count:
            raise DataError(f"{self.path(index)}: the video has {self._count} frames")
        if self._capture is None or index < self._next:
            # Backwards: from the start again, for a seek may land on another frame.
            self._capture = _capture(self._tree, self._name)
            self._next = 0
        while self._next < index and self._capture.grab():
            self._next += 1
        good, pixels = self._capture.read() if self._next == index else (False, None)
        if not good or pixels is None:
            self._capture = None
            raise DataError(f"{self.path(index)}: the frame does not decode")
        self._next = index + 1
        return _rgb(pixels)

    def iterate(self) -> Iterator[Pixels | None]:
        """Decode every frame in order; after the video's end come ``None``."""
        capture = _capture(self._tree, self._name)
        for _ in range(self._count):
            good, pixels = capture.read()
            yield _rgb(pixels) if good else None
        capture.release()


def _rgb(pixels: cv2.typing.MatLike) -> Pixels:
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def _capture(tree: Tree, name: str) -> cv2.VideoCapture:
    path = tree.path(name)
    if not tree.is_file(name):
        raise DataError(f"{path}: no such video")
    # An absolute path, for FFmpeg would take "word:" at the start of another for a protocol.
    local = str(Path(path).absolute()) if tree.local is not None else _local_copy(tree, name).name
    capture = cv2.VideoCapture(local, cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise DataError(f"{path}: does not open as a video")
    width, height = (
        capture.get(key) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    )
    _refuse_huge(path, int(width), int(height))
    return capture


@lru_cache(maxsize=2)
def _local_copy(tree: Tree, name: str) -> "_TemporaryFileWrapper[bytes]":
    """Fetch a remote video; the copy is removed when it is forgotten."""
    copy = NamedTemporaryFile(suffix=f".{name.rpartition('.')[2]}")  # noqa: SIM115
    copy.write(tree.read_bytes(name))
    copy.flush()
    return copy


def image_frames(
    tree: Tree, folder: str, *, numbered: bool = False, first: int | None = None
) -> ImageFrames:
    """List the images of a folder.

    Args:
        tree: The folder that holds ``folder``.
        folder: Name of the folder of images; empty for the tree itself.
        numbered: Files are named by the frame's number; see :func:`in_number_order`.
        first: Number of the first frame, where it is known.

    Raises:
        DataError: The folder is missing or holds no image.
    """
    inside = tree / folder if folder else tree
    names = [name for name in inside.names() if name.lower().endswith(IMAGE_SUFFIXES)]
    if not names:
        raise DataError(f"{inside.root}: holds no image ({', '.join(IMAGE_SUFFIXES)})")
    _refuse_twins(inside.root, names)
    ordered = in_number_order(names, first) if numbered else sorted(names, key=natural)
    return ImageFrames(inside, tuple(ordered))


def _refuse_twins(folder: str, names: list[str]) -> None:
    """Refuse two images of one frame, such as ``1.jpg`` beside ``1.png`` or ``01.jpg``."""
    met: dict[tuple[tuple[int, str], ...], str] = {}
    for name in names:
        twin = met.setdefault(natural(name.rpartition(".")[0]), name)
        if twin is not name:
            raise DataError(
                f"{folder}: holds {twin} and {name}: it is not clear which of them is the frame"
            )


def in_number_order(names: list[str], first: int | None = None) -> list[str]:
    """Sort images by the number at the end of their names (``2.jpg`` before ``10.jpg``).

    A number that is missing gets its name back: reading that frame fails, and the frames after
    it keep their boxes. Names without one, or with different words before it, are sorted by all
    their numbers.

    Args:
        names: File names, at least one.
        first: Number of the first frame, where it is known.
    """
    matched = [_NUMBERED.fullmatch(name) for name in names]
    prefixes = {found["before"] if found else None for found in matched}
    if len(prefixes) > 1 or None in prefixes:
        return sorted(names, key=natural)
    found = [match for match in matched if match]
    by_number = {int(match["number"]): match[0] for match in found}
    numbers = sorted(by_number)
    if len(by_number) < len(names):
        return sorted(names, key=natural)
    start = numbers[0] if first is None else min(first, numbers[0])
    # Dates and identifiers are numbers too; a folder of them has no missing frames.
    if numbers[-1] - start > 2 * len(names) + _MOST_MISSING:
        return [by_number[number] for number in numbers]
    # A missing name must look like its neighbours, for the message names it to a person.
    width = max((len(m["number"]) for m in found if m["number"].startswith("0")), default=1)
    before, suffix = found[0]["before"], by_number[numbers[-1]].rpartition(".")[2]
    return [
        by_number.get(number, f"{before}{number:0{width}d}.{suffix}")
        for number in range(start, numbers[-1] + 1)
    ]


def frame_number(name: str) -> int:
    """Return the number a frame's file is named by, or -1 where the name is not a number."""
    stem = name.rsplit(".", 1)[0]
    return int(stem) if stem.isdecimal() else -1

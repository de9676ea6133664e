"""Write video files with OpenCV, channels in the order red, green, blue."""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from dytrack_platform.errors import DataError, StorageError
from dytrack_platform.storage.atomic import beside
from dytrack_platform.storage.outputs import VIDEO_MARK

Pixels = NDArray[np.uint8]


_CODECS = {".mp4": "mp4v", ".webm": "VP80", ".avi": "MJPG"}
"""What OpenCV's wheels can write, by suffix; browsers play .webm."""
_HIGHEST_RATE = 1000.0
"""Frames per second that every one of the formats takes; WebM counts milliseconds."""
_LARGEST_TERM = 65535
"""Of the fraction that MPEG-4 writes a rate as."""
_USUAL_RATE = 25.0


def writable_rate(fps: float) -> float:
    """Return the rate nearest to ``fps`` that the formats can hold.

    OpenCV writes a rate as a fraction over a power of ten, and MPEG-4 keeps 16 bits of it.
    """
    if not math.isfinite(fps) or fps <= 0:
        return _USUAL_RATE
    fps = min(max(fps, 0.1), _HIGHEST_RATE)
    for digits in (3, 2, 1):
        if round(fps * 10**digits) <= _LARGEST_TERM:
            return round(fps, digits)
    return float(round(fps))


class VideoWriter:
    """Writes a video beside its place and renames it when all frames are in.

    With the path ``None`` it writes nothing. Where the body of the ``with`` ends early, the frames
    so far stay as a whole video.

    Raises:
        DataError: The suffix names no format that can be written.
    """

    def __init__(self, path: Path | None, fps: float) -> None:
        if path is not None and path.suffix.lower() not in _CODECS:
            raise DataError(f"{path}: a video's name must end in {', '.join(_CODECS)}")
        # Absolute, because FFmpeg takes "word:" at the start of a name for a protocol.
        self._path = path.absolute() if path else None
        self.fps = writable_rate(fps)
        """Frames per second that are written."""
        self.written = 0
        """Frames so far."""
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        # OpenCV chooses the container by the suffix.
        self._beside = beside(self._path, self._path.suffix) if self._path else None

    @property
    def wanted(self) -> bool:
        """Whether there is a file to write."""
        return self._beside is not None

    def write(self, frame: Pixels) -> None:
        """Add a frame (H, W, 3) uint8 RGB; one of another size than the first is scaled.

        Raises:
            StorageError: OpenCV cannot write there.
        """
        if self._beside is None:
            return
        if self._writer is None:
            height, width = frame.shape[:2]
            self._size = (width, height)
            self._writer = self._open(self._beside)
        if frame.shape[1::-1] != self._size:
            frame = np.asarray(cv2.resize(frame, self._size), dtype=np.uint8)
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        self.written += 1

    def _open(self, place: Path) -> cv2.VideoWriter:
        place.parent.mkdir(parents=True, exist_ok=True)
        codec = cv2.VideoWriter.fourcc(*_CODECS[place.suffix.lower()])
        with quiet():
            writer = cv2.VideoWriter(str(place), codec, self.fps, self._size)
        if not writer.isOpened():
            with suppress(OSError):  # a folder that is read-only says so here, too
                place.unlink(missing_ok=True)
            raise StorageError(
                f"{self._path}: OpenCV cannot write it; free space or choose another folder"
            )
        return writer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is None or self._beside is None or self._path is None:
            return
        self._writer.release()
        self._writer = None
        # OpenCV does not say when a write fails: read back how many frames there are.
        whole = count_frames(self._beside) == self.written
        try:
            if whole:
                _mark(self._beside)
                self._beside.replace(self._path)
        except OSError:
            whole = False
        if whole:
            return
        self._beside.unlink(missing_ok=True)
        if kind is None:
            raise StorageError(
                f"{self._path}: not all {self.written} frames could be written; free space or "
                "choose another folder"
            )
        self.written = 0


def frame_rate(path: Path) -> float:
    """Return the frames per second that a video's header tells; 0 where it does not open."""
    capture = cv2.VideoCapture(str(path.absolute()))
    rate = float(capture.get(cv2.CAP_PROP_FPS)) if capture.isOpened() else 0.0
    capture.release()
    return rate


def count_frames(path: Path) -> int:
    """Return the number of frames that a video's header tells; 0 where it does not open."""
    with quiet():
        capture = cv2.VideoCapture(str(path.absolute()))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    capture.release()
    return count


def _mark(path: Path) -> None:
    """Add an empty section, which players pass over, that says who wrote the video."""
    size = len(VIDEO_MARK)
    section = {
        ".mp4": (8 + size).to_bytes(4, "big") + b"free",
        ".avi": b"JUNK" + size.to_bytes(4, "little"),
        ".webm": bytes([0xEC, 0x80 | size]),  # EBML's Void
    }[path.suffix.lower()]
    with path.open("ab") as file:
        file.write(section + VIDEO_MARK)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what libraries print to standard error themselves from the screen.

    FFmpeg says of every WebM file that OpenCV's name of the codec is not its own.
    """
    sys.stderr.flush()
    kept = None
    with suppress(OSError, ValueError):
        kept = os.dup(2)
    if kept is None:  # there is no standard error
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)

"""Write video files with OpenCV, channels in the order red, green, blue."""

from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from dytrack_platform.errors import DataError, StorageError

Pixels = NDArray[np.uint8]


_CODECS = {".mp4": "mp4v", ".webm": "VP80", ".avi": "MJPG"}
"""What OpenCV's wheels can write, by suffix; browsers play .webm."""


class VideoWriter:
    """Writes a video beside its place and renames it when all frames are in.

    With the path ``None`` it writes nothing.

    Raises:
        DataError: The suffix names no format that can be written.
    """

    def __init__(self, path: Path | None, fps: float) -> None:
        if path is not None and path.suffix not in _CODECS:
            raise DataError(f"{path}: a video's name must end in {', '.join(_CODECS)}")
        self._path = path
        self._fps = fps
        self._writer: cv2.VideoWriter | None = None
        self._written = 0
        # OpenCV chooses the container by the suffix.
        self._beside = path.with_name(f".part-{path.name}") if path else None

    def write(self, frame: Pixels) -> None:
        """Add a frame (H, W, 3) uint8 RGB.

        Raises:
            StorageError: OpenCV cannot write there.
        """
        if self._beside is None:
            return
        if self._writer is None:
            height, width = frame.shape[:2]
            self._beside.parent.mkdir(parents=True, exist_ok=True)
            codec = cv2.VideoWriter.fourcc(*_CODECS[self._beside.suffix])
            self._writer = cv2.VideoWriter(str(self._beside), codec, self._fps, (width, height))
            if not self._writer.isOpened():
                self._beside.unlink(missing_ok=True)
                raise StorageError(
                    f"{self._path}: OpenCV cannot write it; free space or choose another folder"
                )
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        self._written += 1

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
        if kind is not None:
            self._beside.unlink(missing_ok=True)
            return
        # OpenCV does not say when a write fails: read back how many frames there are.
        if count_frames(self._beside) != self._written:
            self._beside.unlink(missing_ok=True)
            raise StorageError(
                f"{self._path}: not all {self._written} frames could be written; free space or "
                "choose another folder"
            )
        self._beside.rename(self._path)


def count_frames(path: Path) -> int:
    """Return the number of frames that a video's header tells; 0 where it does not open."""
    capture = cv2.VideoCapture(str(path))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    capture.release()
    return count

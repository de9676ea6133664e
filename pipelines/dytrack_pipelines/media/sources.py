"""Where frames come from: a video file, images, a camera, a stream of a network."""

import glob
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dytrack_model.errors import ImageError
from dytrack_model.images import IMAGE_SUFFIXES, RGB, VideoReader, image_files, open_images

_STREAMS = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://")
_QUIET_S = 10.0
"""Time without a frame after which a camera counts as gone."""


@dataclass
class Source:
    """Frames, and what is known of them."""

    name: str
    frames: Iterator[RGB]
    fps: float
    count: int
    """Frames that it announces; 0 where it does not say."""
    files: tuple[Path, ...] = ()
    """What is read, so that no output replaces it."""
    live: "Live | None" = None

    @property
    def names(self) -> tuple[str, ...]:
        """File names of the frames, where each is a file with a name of its own; else none."""
        images = [file for file in self.files if file.suffix.lower() in IMAGE_SUFFIXES]
        differ = len({file.stem for file in images}) == len(images)
        return tuple(file.name for file in images) if differ else ()


def open_source(given: str) -> Source:
    """Open what a user named.

    Args:
        given: A video file, a folder of images, a pattern such as ``frames/*.jpg`` or
            ``frames/%04d.jpg``, the number of a camera, or the address of a stream.

    Raises:
        ImageError: There is no such thing, or it does not open.
    """
    if re.fullmatch(r"\d{1,3}", given) and not Path(given).exists():
        return _live(f"camera {given}", int(given))
    if given.lower().startswith(_STREAMS):
        return _live(given, given)
    path = Path(given)
    if path.is_dir():
        return _images(given, image_files(path))
    # FFmpeg and OpenCV number images with %d and %03d.
    pattern = re.sub(r"%(0\d)?d", "[0-9]*", given)
    if not path.exists() and any(sign in pattern for sign in "*?["):
        found = [Path(name) for name in glob.glob(pattern)]  # noqa: PTH207  (absolute ones too)
        return _images(given, image_files(found, given))
    reader = VideoReader(path)
    return Source(given, reader.frames(), reader.fps, reader.count, (path,))


def _images(name: str, files: list[Path]) -> Source:
    return Source(name, open_images(files), 25.0, len(files), tuple(files))


def _live(name: str, where: int | str) -> Source:
    live = Live(name, where)
    return Source(name, live.frames(), live.fps, 0, live=live)


class Live:
    """A camera or a network stream: always the newest frame, older ones are dropped and counted.

    Raises:
        ImageError: It does not open.
    """

    def __init__(self, name: str, where: int | str) -> None:
        self._name = name
        self._capture = cv2.VideoCapture(where)
        if not self._capture.isOpened():
            raise ImageError(f"{name}: OpenCV does not open it; is it there, and not in use?")
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS)) or 25.0
        self.dropped = 0
        """Frames that newer ones replaced."""
        self._newest: RGB | None = None
        self._ended = False
        self._arrived = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while not self._ended:
            good, pixels = self._capture.read()
            with self._arrived:
                if not good:
                    self._ended = True
                else:
                    self.dropped += self._newest is not None
                    self._newest = RGB.from_bgr(np.asarray(pixels, np.uint8))
                self._arrived.notify()
        self._capture.release()

    def frames(self) -> Iterator[RGB]:
        """Yield the newest frame whenever there is a new one.

        Raises:
            ImageError: Nothing came for ten seconds.
        """
        try:
            while True:
                until = time.monotonic() + _QUIET_S
                with self._arrived:
                    while self._newest is None and not self._ended:
                        if not self._arrived.wait(max(0.0, until - time.monotonic())):
                            raise ImageError(f"{self._name}: no frame for {_QUIET_S:g} seconds")
                    frame, self._newest = self._newest, None
                if frame is None:
                    return
                yield frame
        finally:
            self._ended = True

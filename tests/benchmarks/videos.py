"""Frames of a sequence that is a video beside its annotation, for benchmarks."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import cv2
from numpy.typing import NDArray


def frames_of(folder: Path, most: int | None = None) -> Iterator[NDArray]:
    """Yield the frames, or up to so many, (H, W, 3) uint8, blue first."""
    capture = cv2.VideoCapture(str(next(p for p in folder.iterdir() if p.stem == "video")))
    for _ in itertools.count() if most is None else range(most):
        good, pixels = capture.read()
        if not good:
            return
        yield pixels

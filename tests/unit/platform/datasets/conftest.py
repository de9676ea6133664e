"""Fixture trees: small folders in the layouts that owners publish."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from dytrack_platform.datasets.sequence import VideoSequence
from dytrack_platform.errors import DataError


class Folder:
    """Builds a tree; the grey level of a synthetic image is 20 plus the number in its name."""

    def __init__(self, root: Path):
        self.root = root

    def __str__(self):
        return str(self.root)

    def text(self, path: str, content: str):
        return self.data(path, content.encode())

    def data(self, path: str, content: bytes):
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return target

    def image(self, path: str, level: int, size=(32, 24)):
        return self.data(path, encoded(level, size, Path(path).suffix))

    def images(self, folder: str, numbers, pattern="{:08d}.jpg", size=(32, 24)):
        for number in numbers:
            self.image(f"{folder}/{pattern.format(number)}", 20 + number % 200, size)


def encoded(level: int, size=(32, 24), suffix=".jpg") -> bytes:
    width, height = size
    return cv2.imencode(suffix, np.full((height, width, 3), level, np.uint8))[1].tobytes()


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "source")


@pytest.fixture
def number_of():
    """Tell which synthetic image a frame is, by its grey level."""
    return lambda pixels: round(float(pixels.mean())) - 20


@pytest.fixture
def faults():
    return []


@pytest.fixture
def moving():
    """Make a sequence of noise frames in memory, its target moving to the right."""
    return a_moving_sequence


def a_moving_sequence(name="a", frames=40, size=(160, 120), box=(20.0, 30.0, 24.0, 18.0), step=1.0):
    rng = np.random.default_rng(list(name.encode()))
    images = tuple(
        cv2.GaussianBlur(rng.integers(0, 255, (size[1], size[0], 3), np.uint8), (0, 0), 2)
        for _ in range(min(frames, 8))
    )
    boxes = np.tile(np.array(box), (frames, 1))
    boxes[:, 0] += step * np.arange(frames)
    return VideoSequence(
        dataset="made",
        name=name,
        frames=InMemory(name, images, frames),
        boxes_xywh=boxes,
        visible=np.ones(frames, bool),
    )


class InMemory:
    """Frames that are kept, a few of them in turn; those in ``broken`` do not decode."""

    def __init__(self, name, images, count, broken=()):
        self.name, self.images, self.count, self.broken = name, images, count, set(broken)

    def __len__(self):
        return self.count

    def path(self, index):
        return f"{self.name}/{index}"

    def read(self, index):
        if index in self.broken:
            raise DataError(f"{self.path(index)}: does not decode as an image")
        return self.images[index % len(self.images)]

    def iterate(self):
        for index in range(self.count):
            yield None if index in self.broken else self.read(index)

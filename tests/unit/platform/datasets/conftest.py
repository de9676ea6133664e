"""Fixture trees: small folders in the layouts that owners publish."""

from pathlib import Path

import cv2
import numpy as np
import pytest


class Folder:
    """Builds a tree; the grey level of a made image is 20 plus the number in its name."""

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
    """Tell which made image a frame is, by its grey level."""
    return lambda pixels: round(float(pixels.mean())) - 20


@pytest.fixture
def faults():
    return []

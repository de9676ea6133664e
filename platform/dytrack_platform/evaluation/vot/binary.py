"""VOT's binary results: what vot-toolkit writes unless it is told to write text.

Little-endian: a version (int16, 1) and a count (uint32), then per region one byte for its kind and
its numbers: 0 a code (uint32); 1 x, y, w, h (float32); 2 a number of corners (uint16) and their
coordinates (float32); 3 a mask's x, y (int16), width, height and number of runs (uint16), and runs.
"""

import struct
from pathlib import Path

import numpy as np

from dytrack_platform.datasets.io.regions import Polygon, Rectangle, Region, Special, mask_from_runs
from dytrack_platform.errors import ResultError


def read_binary(path: Path) -> list[Region]:
    """Read one region per frame.

    Raises:
        ResultError: The file is missing, of another version, or ends early.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ResultError(f"{path}: cannot be read: {error.strerror}") from error
    reader = _Reader(data)
    try:
        version, count = reader.take("hI")
        if version != 1:
            raise ResultError(f"{path}: version {version} of VOT's binary results is not known")
        return [_region(reader) for _ in range(count)]
    except (struct.error, ValueError) as error:
        raise ResultError(f"{path}: damaged or not a VOT result: {error}") from error


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, form: str) -> tuple[int, ...]:
        values = struct.unpack_from(f"<{form}", self._data, self._at)
        self._at += struct.calcsize(f"<{form}")
        return values


def _region(reader: _Reader) -> Region:
    (kind,) = reader.take("B")
    if kind == 0:
        (code,) = reader.take("I")
        return Special(code)
    if kind == 1:
        return Rectangle(*reader.take("4f"))
    if kind == 2:
        (corners,) = reader.take("H")
        return Polygon(np.array(reader.take(f"{2 * corners}f"), dtype=np.float64).reshape(-1, 2))
    if kind == 3:
        x, y, w, h, runs = reader.take("hhHHH")
        return mask_from_runs(x, y, w, h, reader.take(f"{runs}H"))
    raise ValueError(f"no region has kind {kind}")

"""Read boxes, flags and times from text files as trackers and datasets write them.

Numbers may stand between commas, tabs, spaces or semicolons, with or without carriage returns
and a final newline. Nothing is mended silently: what cannot be read is named with its line.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.datasets.io.text import fields, number
from dytrack_platform.errors import ResultError
from dytrack_platform.evaluation.scoring.metrics import Floats


def read_boxes(path: Path) -> Floats:
    """Read one ``x y w h`` box per line.

    Returns:
        (N, 4) pixels; NaN where the file says so.

    Raises:
        ResultError: The file is missing, empty, not text, or a line is not four numbers.
    """
    return parse_boxes(path, read_text(path))


def delimiters(text: str) -> str:
    """Name the delimiters of a file of boxes: one, or several where lines differ."""
    rows = sum(1 for line in text.splitlines() if line.strip())
    named = {",": "commas", "\t": "tabs", ";": "semicolons"}
    counts = {name: text.count(mark) for mark, name in named.items()}
    used = [name for name, count in counts.items() if count]
    if sum(counts.values()) < 3 * rows:
        used.append("spaces")
    return " and ".join(used)


def parse_boxes(path: Path, text: str) -> Floats:
    """Read boxes from the text of a file; see :func:`read_boxes`."""
    quick = _read_evenly(text)
    if quick is not None:
        return quick
    rows = []
    for place, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = [number(part) for part in fields(line)]
        except ValueError:
            raise ResultError(
                f"{path}, line {place}: expected x, y, w, h in pixels, got {line.strip()!r:.60}"
            ) from None
        if len(row) != 4:
            raise ResultError(
                f"{path}, line {place}: expected four numbers x, y, w, h, got {len(row)}"
            )
        rows.append(row)
    if not rows:
        raise ResultError(f"{path}: the file is empty; expected one box x,y,w,h per line")
    return np.array(rows, dtype=np.float64)


def _read_evenly(text: str) -> Floats | None:
    """Read the common case, every line four numbers, in one pass; None where it is not that."""
    if "_" in text or not text.isascii():  # digits that only Python takes for numbers
        return None
    lines = text.strip().splitlines()
    spaced = text.translate(_TO_SPACES)
    if not lines or any(len(line.split()) != 4 for line in spaced.strip().splitlines()):
        return None
    try:
        return np.array(spaced.split(), dtype=np.float64).reshape(-1, 4)
    except ValueError:
        return None


_TO_SPACES = str.maketrans({",": " ", "\t": " ", ";": " "})


def read_numbers(path: Path) -> Floats:
    """Read a file of numbers in any arrangement (flags, times, attributes).

    Returns:
        (N,) in reading order.

    Raises:
        ResultError: The file is missing, not text, or holds something that is not a number.
    """
    words = read_text(path).translate(_TO_SPACES).split()
    try:
        return np.array([number(word) for word in words], dtype=np.float64)
    except ValueError:
        raise ResultError(f"{path}: expected numbers only, got {' '.join(words)!r:.60}") from None


def read_flags(path: Path, frames: int) -> NDArray[np.bool_]:
    """Read one flag per frame, 1 for true.

    Raises:
        ResultError: The file cannot be read, or holds another number of flags.
    """
    numbers = read_numbers(path)
    if len(numbers) != frames:
        raise ResultError(f"{path}: expected {frames} flags, one per frame, got {len(numbers)}")
    flags: NDArray[np.bool_] = numbers != 0
    return flags


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        ResultError: It is missing, cannot be opened, or is not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ResultError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise ResultError(f"{path}: not a text file; expected one box x,y,w,h per line") from None
    except OSError as error:
        raise ResultError(f"{path}: cannot be read: {error.strerror}") from error


def format_boxes(boxes_xywh: NDArray[np.float64], digits: int | None = None) -> str:
    """Write one box per line with commas.

    Args:
        boxes_xywh: (N, 4) pixels.
        digits: Decimals; by default as many as it takes to read the same numbers back.
    """
    if digits is None:
        lines = (",".join(repr(value) for value in row) for row in boxes_xywh.tolist())
    else:
        lines = (",".join(f"{value:.{digits}f}" for value in row) for row in boxes_xywh.tolist())
    return "".join(f"{line}\n" for line in lines)

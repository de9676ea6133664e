"""Read the text files in which owners and trackers publish boxes, labels and lists.

They mix commas, semicolons, tabs and blanks, line ends, missing last newlines and byte order
marks; a spreadsheet adds a header. Rows that cannot be read become NaN and are reported, so that
every row stays with its frame and the rest of a sequence stays usable.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.datasets.sequence import Boxes, Fault
from dytrack_platform.errors import DataError

_SEPARATOR = re.compile(r"\s*[,;]\s*|\s+")
_NUMBER = re.compile(
    r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|nan|inf(?:inity)?)", re.ASCII | re.IGNORECASE
)
_COMMENTS = ("#", "%", "//")


class Table(NamedTuple):
    """The rows of a text file."""

    values: NDArray[np.float64]
    """(N, columns), NaN in rows that are blank or could not be read."""
    unreadable: list[int]
    """Rows that have another number of columns, or a word in them."""
    blank: list[int]
    """Rows with nothing in them, with another row after them."""
    passed_over: list[str]
    """Lines that are no rows: a header at the start, and comments."""


def number(field: str) -> float:
    """Read a number as people and trackers write it; Python itself takes ``7_0`` for 70.

    Raises:
        ValueError: It is none.
    """
    if not _NUMBER.fullmatch(field):
        raise ValueError(f"{field!r} is not a number")
    return float(field)


def fields(line: str) -> list[str]:
    """Split a line at commas, semicolons, tabs and blanks; nothing between two commas is ``""``."""
    line = line.strip(" \t,;\r")
    return _SEPARATOR.split(line) if line else []


def lines(text: str) -> list[str]:
    """Split into lines that are not blank, without their line ends."""
    return [line for line in (raw.strip() for raw in text.splitlines()) if line]


def parse_rows(text: str, columns: int = 4) -> Table:
    """Read a table of numbers, one row a line."""
    passed_over, rows = [], []
    for line in text.rstrip(" \t\r\n,;").splitlines():
        if line.lstrip().startswith(_COMMENTS):
            passed_over.append(line.strip())
        else:
            rows.append(fields(line))
    if len(rows) > 1 and rows[0] and not any(_NUMBER.fullmatch(field) for field in rows[0]):
        passed_over.insert(0, ",".join(rows.pop(0)))
    table = np.full((len(rows), columns), np.nan)
    unreadable: list[int] = []
    blank: list[int] = []
    for index, row in enumerate(rows):
        try:
            table[index] = [number(value) for value in row]
        except ValueError:  # another length, or not a number
            table[index] = np.nan
            (unreadable if row else blank).append(index)
    return Table(table, unreadable, blank, passed_over)


def parse_labels(text: str) -> NDArray[np.int64]:
    """Read integer labels, one a line or all in one line.

    Raises:
        DataError: A label is not a whole number.
    """
    try:
        words = [word for line in text.splitlines() for word in fields(line)]
        return np.array([_whole(word) for word in words], int)
    except (ValueError, OverflowError) as error:
        raise DataError(f"labels must be whole numbers: {error}") from error


def _whole(field: str) -> int:
    value = number(field)
    if not value.is_integer():
        raise ValueError(f"{field!r} is not a whole number")
    return int(value)


def fit_labels(labels: NDArray[np.int64], length: int, fill: int = 0) -> NDArray[np.int64]:
    """Cut labels to ``length`` or fill them up with ``fill``."""
    fitted = np.full(length, fill)
    fitted[: min(length, len(labels))] = labels[:length]
    return fitted


def usable_boxes(boxes_xywh: Boxes) -> NDArray[np.bool_]:
    """Tell which of (N, 4) boxes are finite and have an area."""
    finite = np.isfinite(boxes_xywh).all(axis=1)
    with np.errstate(invalid="ignore"):
        return finite & (boxes_xywh[:, 2] > 0) & (boxes_xywh[:, 3] > 0)


def box_faults(
    dataset: str,
    sequence: str,
    boxes_xywh: Boxes,
    present: NDArray[np.bool_],
    unreadable: Sequence[int] = (),
) -> list[Fault]:
    """List frames whose target is said to be there but whose box cannot be used.

    Args:
        dataset: Name of the dataset.
        sequence: Name of the sequence.
        boxes_xywh: (N, 4) pixels.
        present: (N,) what the owner says of the target's presence.
        unreadable: Rows that were not four numbers.
    """
    faults = [
        Fault(dataset=dataset, sequence=sequence, frame=i, reason="the box is not four numbers")
        for i in unreadable
    ]
    wrong = np.flatnonzero(present & ~usable_boxes(boxes_xywh))
    for index in sorted(set(wrong.tolist()) - set(unreadable)):
        x, y, w, h = boxes_xywh[index].tolist()
        reason = f"the box {x:g},{y:g},{w:g},{h:g} has no area or is not finite"
        faults.append(Fault(dataset=dataset, sequence=sequence, frame=index, reason=reason))
    return faults

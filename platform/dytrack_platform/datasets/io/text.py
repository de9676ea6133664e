"""Read the text files in which owners publish boxes, labels and lists.

Owners mix commas, tabs and blanks, line ends, missing last newlines and byte order marks. Rows
that cannot be read become NaN and are reported, so that the rest of a sequence stays usable.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.datasets.sequence import Boxes, Fault
from dytrack_platform.errors import DataError

_SEPARATOR = re.compile(r"[,\s]+")


def lines(text: str) -> list[str]:
    """Split into lines that are not blank, without their line ends."""
    return [line for line in (raw.strip() for raw in text.splitlines()) if line]


def parse_rows(text: str, columns: int = 4) -> tuple[NDArray[np.float64], list[int]]:
    """Read a table of numbers, one row a line.

    Returns:
        (N, columns) float64, NaN in every row that has another number of columns or a word in
        it, and the indices of those rows.
    """
    rows = [_SEPARATOR.split(line.strip(", \t")) for line in lines(text)]
    table = np.full((len(rows), columns), np.nan)
    bad = []
    for index, row in enumerate(rows):
        try:
            table[index] = [float(value) for value in row]
        except ValueError:  # another length, or not a number
            table[index] = np.nan
            bad.append(index)
    return table, bad


def parse_labels(text: str) -> NDArray[np.int64]:
    """Read integer labels, one a line or all in one line.

    Raises:
        DataError: A label is not a whole number.
    """
    try:
        return np.array([int(value) for value in _SEPARATOR.split(text.strip()) if value], int)
    except ValueError as error:
        raise DataError(f"labels must be whole numbers: {error}") from error


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

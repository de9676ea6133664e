"""How ambiguous a shallow exit's answer is: what its own head shows of a frame.

How sure an exit is tells little of what depth would gain (docs/LOG.md). Over a video depth gains
most where a target would be lost, and before that something else in the search region looks like
it, or the box has jumped, or its size has. Of the frames in which the first exit loses what the
deepest one keeps, four in five are in the tenth of all frames where the second best place comes
nearest to the best one. It costs the exit's head, which is a tenth of a shallow exit.

Source: our choice; the second peak of a response map as a sign of distraction is Wang's (LMCF,
2017) and older.

Dimensions: B crops, H x W cells.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


class Ambiguity(NamedTuple):
    """What one exit's head shows; each between 0 and 1, larger being worse."""

    distractor: float
    """Second best over best: the highest score outside of the box, over the one at its peak."""
    displacement: float
    """How far the centre moved since the last frame, over the root of the target's area."""
    scale_change: float
    """Absolute logarithm of the box's area over that of the last frame."""


CLEAR = Ambiguity(0.0, 0.0, 0.0)


def distraction(
    weighted: Floats, boxes_cxcywh: Sequence[Sequence[float]] | Floats
) -> NDArray[np.float64]:
    """Return (B,) how close the second best thing in a crop comes to the best, in [0, 1].

    Args:
        weighted: (B, H, W) a head's scores, times the window with which its boxes were read.
        boxes_cxcywh: (B, 4) these boxes, in [0, 1] of the crop.
    """
    count, height, width = weighted.shape
    boxes = np.asarray(boxes_cxcywh, np.float64)
    flat = weighted.reshape(count, -1)
    peak = flat.argmax(axis=1)
    best = flat[np.arange(count), peak]
    row, column = np.divmod(peak[:, None], width)
    x, y = np.arange(width), np.arange(height)
    # The box itself, and never less than the three by three cells around its middle and its peak:
    # a peak is wider than one cell.
    reach = np.maximum(0.5 * boxes[:, 2:] * (width, height), 1.5)
    in_x = np.abs(x + 0.5 - boxes[:, :1] * width) <= reach[:, :1]
    in_y = np.abs(y + 0.5 - boxes[:, 1:2] * height) <= reach[:, 1:]
    at_x, at_y = np.abs(x - column) <= 1, np.abs(y - row) <= 1
    near = (in_y[:, :, None] & in_x[:, None]) | (at_y[:, :, None] & at_x[:, None])
    second = np.where(near, 0.0, weighted).reshape(count, -1).max(axis=1)
    return np.asarray(second / best, np.float64)


def motion(boxes_cxcywh: Sequence[float] | Floats, factor: float) -> NDArray[np.float64]:
    """Return (..., 2) how far targets moved in their search crops and how their sizes changed.

    Args:
        boxes_cxcywh: (..., 4) in [0, 1] of crops that were cut around the last frame's boxes.
        factor: A crop's side over the root of that box's area.

    Returns:
        Displacement and scale change of each, in [0, 1].
    """
    boxes = np.asarray(boxes_cxcywh, np.float64)
    displacement = np.hypot(boxes[..., 0] - 0.5, boxes[..., 1] - 0.5) * factor
    area = boxes[..., 2] * boxes[..., 3] * factor**2
    scale_change = np.abs(np.log(np.maximum(area, 1e-9)))
    moved = np.stack([displacement, scale_change], axis=-1)
    return np.asarray(np.minimum(moved, 1.0), np.float64)

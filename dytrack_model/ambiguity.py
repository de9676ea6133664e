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

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


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
    score: Tensor, boxes_cxcywh: Sequence[Sequence[float]] | Tensor, window: Tensor | None = None
) -> Tensor:
    """Return (B,) how close the second best thing in a crop comes to the best, in [0, 1].

    Args:
        score: (B, H, W) a head's scores.
        boxes_cxcywh: (B, 4) the boxes that were read from it, in [0, 1] of the crop.
        window: (H, W) the weights with which they were read, and with which both are compared.
    """
    height, width = score.shape[1:]
    weighted = score if window is None else score * window
    boxes = torch.as_tensor(boxes_cxcywh, dtype=torch.float32, device=score.device)
    best, peak = weighted.flatten(1).max(dim=1)
    column, row = peak[:, None, None] % width, torch.div(peak, width, rounding_mode="floor")
    x = torch.arange(width, device=score.device)
    y = torch.arange(height, device=score.device)[:, None]
    # The box itself, and never less than the three by three cells around its middle and its peak:
    # a peak is wider than one cell.
    near = ((x - column).abs() <= 1) & ((y - row[:, None, None]).abs() <= 1)
    centre_x, centre_y = boxes[:, 0, None, None] * width, boxes[:, 1, None, None] * height
    reach_x = (boxes[:, 2, None, None] * width * 0.5).clamp(min=1.5)
    reach_y = (boxes[:, 3, None, None] * height * 0.5).clamp(min=1.5)
    near |= ((x + 0.5 - centre_x).abs() <= reach_x) & ((y + 0.5 - centre_y).abs() <= reach_y)
    second = weighted.masked_fill(near, 0.0).flatten(1).amax(dim=1)
    return second / best


def motion(box_cxcywh: Sequence[float], factor: float) -> tuple[float, float]:
    """Return how far a target moved in its search crop and how its size changed, in [0, 1] each.

    Args:
        box_cxcywh: (4,) in [0, 1] of a crop that was cut around the last frame's box.
        factor: The crop's side over the root of that box's area.
    """
    x, y, width, height = box_cxcywh
    displacement = math.hypot(x - 0.5, y - 0.5) * factor
    scale_change = abs(math.log(max(width * height * factor**2, 1e-9)))
    return min(displacement, 1.0), min(scale_change, 1.0)

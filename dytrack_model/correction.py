"""Let shallow exits make the same mistake only once: what the deepest exit said of their boxes.

A shallow exit is not wrong at random. On one target it draws the box a little too small in every
frame, on another beside the middle: the difference to the deepest exit's box in one frame
foretells a good part of the difference ten frames later. Whenever a frame runs to full depth,
every exit's box is there to compare, at the price of the shallower heads; the difference is kept,
in units of the box, and taken off the shallow boxes that follow. Our choice; docs/LOG.md has what
it gains.

Dimensions: E exits, N targets.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float64]

_RATE = 0.5
"""Share of a new difference in what is kept: half of it is chance."""
_LARGEST = 0.35
"""Largest shift in units of the box, and largest logarithm of a factor on its sides: a deep box on
another object says nothing of this one."""


class BoxCorrection:
    """Differences between each exit's boxes and the deepest one's."""

    def __init__(self, exits: int, targets: int = 1) -> None:
        self.shifts = np.zeros((exits - 1, targets, 4))
        """Shift of the centre in units of the box's sides, and logarithms of factors on them."""

    def apply(self, boxes_xywh: Boxes) -> Boxes:
        """Return corrected boxes.

        Args:
            boxes_xywh: (E, N, 4) in pixels; the deepest exit's stay as they are. Fewer exits may
                be given, from the shallowest on.
        """
        count = min(len(boxes_xywh), len(self.shifts))
        corrected = boxes_xywh.copy()
        corrected[:count] = _shifted(boxes_xywh[:count], self.shifts[:count])
        return corrected

    def centred(self, exit_index: int, box_cxcywh: Sequence[float]) -> list[float]:
        """Return one exit's corrected box (4,) ``cx, cy, w, h``, of one target, in any units."""
        if exit_index >= len(self.shifts):
            return list(box_cxcywh)
        x, y, width, height = box_cxcywh
        boxes = np.array([x - 0.5 * width, y - 0.5 * height, width, height])
        left, top, width, height = _shifted(boxes, self.shifts[exit_index, 0]).tolist()
        return [left + 0.5 * width, top + 0.5 * height, width, height]

    def learn(self, boxes_xywh: Boxes, which: NDArray[np.bool_] | None = None) -> None:
        """Take in a frame that ran to full depth.

        Args:
            boxes_xywh: (E, N, 4) in pixels, before any correction.
            which: (N,) targets that ran to full depth; None: all.
        """
        found, alike = _difference(boxes_xywh)
        if which is not None:
            alike &= which[None, :, None]
        self.shifts = np.where(alike, self.shifts + _RATE * (found - self.shifts), self.shifts)


def corrected_along(boxes_xywh: Boxes, taken: NDArray[np.int64]) -> Boxes:
    """Return the boxes that P policies give along one sequence, shallow ones corrected.

    Args:
        boxes_xywh: (F, E, 4) in pixels, of every exit in consecutive frames, before corrections.
        taken: (P, F) exit at which each policy leaves; frames at the last one are learned from.

    Returns:
        (P, F, 4), as :class:`BoxCorrection` would give them, for all policies at once.
    """
    frames, exits = boxes_xywh.shape[:2]
    shifts = np.zeros((exits, len(taken), 4))  # the last exit's stay zero
    policies = np.arange(len(taken))
    found, alike = _difference(boxes_xywh.transpose(1, 0, 2))
    given = np.empty((len(taken), frames, 4))
    for frame in range(frames):
        left = taken[:, frame]
        given[:, frame] = _shifted(boxes_xywh[frame, left], shifts[left, policies])
        deep = np.flatnonzero(left == exits - 1)
        learned = np.flatnonzero(alike[:, frame, 0])
        if len(deep) and len(learned):
            at = np.ix_(learned, deep)
            shifts[at] += _RATE * (found[learned, frame][:, None] - shifts[at])
    return given


def _shifted(boxes_xywh: Boxes, shifts: Boxes) -> Boxes:
    """Apply shifts (..., 4) to boxes (..., 4)."""
    sides = boxes_xywh[..., 2:]
    centres = boxes_xywh[..., :2] + 0.5 * sides + shifts[..., :2] * sides
    grown = sides * np.exp(shifts[..., 2:])
    return np.concatenate([centres - 0.5 * grown, grown], axis=-1)


def _difference(boxes_xywh: Boxes) -> tuple[Boxes, NDArray[np.bool_]]:
    """Return each shallow box's shift (E - 1, N, 4) to the deepest of (E, N, 4), and (E - 1, N, 1).

    The second says whether both are of one thing: where they are not, nothing is learned.
    """
    own, deep = boxes_xywh[:-1], boxes_xywh[-1:]
    sides = np.maximum(own[..., 2:], 1e-6)
    moved = (deep[..., :2] + 0.5 * deep[..., 2:] - own[..., :2] - 0.5 * own[..., 2:]) / sides
    grown = np.log(np.maximum(deep[..., 2:], 1e-6) / sides)
    found = np.concatenate([moved, grown], axis=-1)
    return found, (np.abs(found) <= _LARGEST).all(axis=-1, keepdims=True)


def agreement(boxes_xywh: Boxes) -> Boxes:
    """Return the IoU (E - 1, N) of each exit's boxes with the deepest one's, from (E, N, 4)."""
    return overlap(boxes_xywh[:-1], boxes_xywh[-1:])


def overlap(one_xywh: Boxes, other_xywh: Boxes) -> Boxes:
    """Return the IoU (...) of boxes (..., 4) of shapes that broadcast; NaN where a box has NaN."""
    low = np.maximum(one_xywh[..., :2], other_xywh[..., :2])
    high = np.minimum(
        one_xywh[..., :2] + one_xywh[..., 2:], other_xywh[..., :2] + other_xywh[..., 2:]
    )
    common = np.clip(high - low, 0, None).prod(axis=-1)
    areas = one_xywh[..., 2:].prod(axis=-1) + other_xywh[..., 2:].prod(axis=-1)
    return np.asarray(common / np.maximum(areas - common, 1e-9), np.float64)

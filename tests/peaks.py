"""Boxes of two runtimes are compared where their score maps have the same peak."""

import numpy as np


def keep_scores(tracker):
    """Keep the windowed scores (H * W,) of every head that runs, in the list that is returned."""
    seen, maps = [], tracker.engine.maps

    def keeping(exit_index, tensors):
        found = maps(exit_index, tensors)
        seen.append((found.score[0] * tracker._regions[0].window).flatten())
        return found

    tracker.engine.maps = keeping
    return seen


def differ(ours, theirs, score, wanted):
    """Compare one exit's prediction with the reference's on the same crop.

    Returns:
        The largest difference of the boxes in pixels, whether the peak is the same, and how far
        below the reference's best its own score at the other peak is, as a share.
    """
    gap = float(np.abs(ours.box_xywh - theirs.box_xywh).max())
    below = 1 - float(wanted[score.argmax()] / wanted.max())
    return gap, bool(score.argmax() == wanted.argmax()), below

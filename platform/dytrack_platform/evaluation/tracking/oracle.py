"""The bound of early exits: what a decisioner that knew the truth would choose."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.evaluation.tracking.protocol import SequenceResult


def oracle(
    fixed: Sequence[SequenceResult], overlaps: Sequence[NDArray[np.float64]], *, slack: float = 0.01
) -> SequenceResult:
    """Choose, frame by frame, the cheapest exit that is about as good as the best one.

    It picks among the runs of the fixed exits, each in its own loop: a bound for one step of
    choice, not for what a different crop might have led to.

    Args:
        fixed: Results of each exit alone, shallow to deep, on one sequence of N frames.
        overlaps: (N,) true IoU of each; NaN where there is no annotation.
        slack: IoU that may be lost to the best exit.

    Returns:
        Boxes, exits and costs of the chosen exits.
    """
    quality = np.nan_to_num(np.stack(overlaps), nan=0.0)
    enough = quality >= quality.max(axis=0) - slack
    chosen = np.argmax(enough, axis=0)  # the first, so the cheapest, that is good enough
    frames = np.arange(len(chosen))

    def pick(name: str) -> NDArray[np.float64]:
        return np.asarray(np.stack([getattr(r, name) for r in fixed])[chosen, frames])

    # Frame 1, and frames that did not decode, have no exit in any run.
    exit_indices = np.where(fixed[0].exit_indices < 0, -1, chosen)
    return replace(
        fixed[0],
        boxes_xywh=pick("boxes_xywh"),
        times_s=pick("times_s"),
        network_ms=pick("network_ms"),
        scores=np.full(len(chosen), np.nan),
        gmacs=pick("gmacs"),
        exit_indices=exit_indices,
        states=(),
    )

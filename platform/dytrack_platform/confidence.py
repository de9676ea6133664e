"""Is a tracker's predicted IoU worth trusting? Against the true one, frame by frame."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How a predicted IoU relates to the true one."""

    frames: int
    """Frames that have both."""
    auroc: float
    """Chance that a frame above ``success`` is scored above one that is not; NaN where all
    frames are of one kind."""
    expected_error: float
    """Mean over bins of |mean predicted - mean true| weighted by frames, in IoU."""
    edges: Floats
    """(B + 1,) borders of the bins over [0, 1]."""
    counts: NDArray[np.int64]
    """(B,) frames per bin."""
    predicted: Floats
    """(B,) mean predicted IoU; NaN in an empty bin."""
    true: Floats
    """(B,) mean true IoU; NaN in an empty bin."""


def calibrate(
    predicted: Floats, true: Floats, *, bins: int = 10, success: float = 0.5
) -> Calibration:
    """Compare predicted with true IoU.

    Args:
        predicted: (N,) in [0, 1]; NaN frames are left out.
        true: (N,) in [0, 1]; NaN or negative (no valid annotation) frames are left out.
        bins: Number of equal bins.
        success: True IoU above which a frame counts as found.
    """
    known = np.isfinite(predicted) & np.isfinite(true) & (true >= 0)
    predicted, true = np.clip(predicted[known], 0.0, 1.0), true[known]
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.minimum((predicted * bins).astype(np.int64), bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_predicted = np.bincount(place, weights=predicted, minlength=bins) / counts
        mean_true = np.bincount(place, weights=true, minlength=bins) / counts
    # Weighted by frames: an empty or nearly empty bin says nothing about how often the tracker
    # errs.
    gaps = np.abs(mean_predicted - mean_true)
    full = counts > 0
    error = float(np.sum(gaps[full] * counts[full]) / len(true)) if len(true) else float("nan")
    return Calibration(
        frames=len(true),
        auroc=auroc(predicted, true > success),
        expected_error=error,
        edges=edges,
        counts=counts.astype(np.int64),
        predicted=mean_predicted,
        true=mean_true,
    )


def auroc(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """Area under the receiver operating curve; ties count half (Mann-Whitney).

    Args:
        scores: (N,) any real numbers.
        positive: (N,) the class to be ranked higher.

    Returns:
        A value in [0, 1], or NaN where one class is empty.
    """
    hits = int(positive.sum())
    misses = len(positive) - hits
    if hits == 0 or misses == 0:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    # AUROC is the rank-sum statistic; equal scores share the mean of their ranks, so that a
    # constant prediction gets exactly one half.
    ranks = (last - (counts - 1) / 2)[inverse]  # mean rank of equal scores, from 1
    return float((ranks[positive].sum() - hits * (hits + 1) / 2) / (hits * misses))

"""Is one tracker better than another? Paired bootstrap over sequences.

Frames of a sequence are not independent, so a sequence is one draw. Both trackers are drawn
together: what is hard about a sequence is hard for both and cancels in the difference.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and where it may lie."""

    value: float
    low: float
    high: float

    @property
    def decided(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0 or self.high < 0


def interval(
    rows: Floats,
    statistic: Callable[[Floats], Floats] | None = None,
    *,
    confidence: float = 0.95,
    draws: int = 4000,
    seed: int = 0,
) -> Interval:
    """Give the percentile interval of a statistic of sequences.

    Args:
        rows: (S,) one number per sequence (a score, or a difference of two), or (S, K) numbers
            that the statistic combines.
        statistic: From (D, S) or (D, S, K) draws to (D,) values; the mean by default.
        confidence: Share of the draws inside the interval.
        draws: How many resamples.
        seed: Of the resamples; the same seed pairs the draws of several calls.
    """
    count = len(rows)
    combine = statistic or (lambda drawn: np.asarray(drawn.mean(axis=1)))
    places = np.random.default_rng(seed).integers(0, count, (draws, count))
    values = np.concatenate([combine(rows[part]) for part in np.array_split(places, 8)])
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(combine(rows[None])[0]), float(low), float(high))

"""Paths and poses over time: smooth, bounded, seeded."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.float64]


def wander(
    rng: np.random.Generator, frames: int, slowest: float, waves: int = 4
) -> NDArray[np.float64]:
    """Make a smooth random curve in about [-1, 1].

    Args:
        rng: Source of chance.
        frames: Length.
        slowest: Period of the slowest wave in frames; the others are up to ``waves`` times
            faster and weaker.
        waves: Number of waves.

    Returns:
        (frames,) values.
    """
    time = np.arange(frames)
    curve = np.zeros(frames)
    for wave in range(1, waves + 1):
        period = slowest / wave * rng.uniform(0.8, 1.25)
        # Faster waves are weaker: real motion has little energy in short periods.
        curve += np.sin(2 * np.pi * (time / period + rng.random())) * rng.uniform(0.4, 1) / wave
    return curve / 1.4


def event(rng: np.random.Generator, frames: int, length: tuple[int, int]) -> NDArray[np.float64]:
    """Make the progress of one event: below 0 before it, 0 to 1 in it, above 1 after it.

    The first fifth of the sequence is spared, so that a tracker sees its target first.

    Args:
        rng: Source of chance.
        frames: Length of the sequence.
        length: Shortest and longest event in frames.

    Returns:
        (frames,) values.
    """
    duration = int(rng.integers(length[0], length[1] + 1))
    earliest = frames // 5
    start = int(rng.integers(earliest, max(earliest + 1, frames - duration)))
    return (np.arange(frames) - start) / duration


def rise_and_fall(progress: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn an event's progress into 0, rising smoothly to 1, held, and back to 0."""
    return np.minimum(1.5 * np.sin(np.pi * np.clip(progress, 0, 1)), 1.0)


def slowed(curve: Curve, largest_step: float) -> Curve:
    """Shrink a curve about its mean until its steps are at most ``largest_step``, mostly."""
    if len(curve) < 2:
        return curve
    # Not the largest step, which a single crest would decide.
    step = float(np.quantile(np.abs(np.diff(curve)), 0.95))
    return curve * min(1.0, largest_step / max(step, 1e-9))


@dataclass(frozen=True, slots=True)
class Poses:
    """Where an object is in each frame; all arrays have shape (frames,)."""

    x: Curve
    """Centre in pixels of the image."""
    y: Curve
    """Centre in pixels of the image."""
    size: Curve
    """Longer side in pixels."""
    stretch: Curve
    """Factor on the width over the height, for changes of view."""
    angle: Curve
    """Rotation in radians."""
    phase: Curve
    """Phase of the wave that deforms the object."""
    wave: Curve
    """Amplitude of that wave as a share of the size."""

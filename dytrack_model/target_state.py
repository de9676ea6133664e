"""Whether the target is there: tracking, doubtful, lost, found again; and where to look for it.

A box is always given, also where there is no target, and a tracker that believes it drifts: onto
the background, growing or shrinking until nothing is left to come back from. So the predicted IoU,
smoothed over a few frames, is watched as a share of the level that it has while this target is
tracked: how sure a tracker is differs from target to target, and from tracker to tracker, but its
fall means the same. When it falls, the box's size is frozen; when it falls further, the target is
lost, and looked for around the last reliable place in a region that widens to the whole frame. To
come back asks for more than to leave: ``found_above`` in two consecutive frames, the second of
which looks where the first one found.

Source: our choice; that a long-term tracker says itself that the target is gone and looks for it
in a growing region is Kalal's (TLD, 2012) and Zhu's (DaSiamRPN, 2018).
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from dytrack_model.config import require

Place = tuple[float, float]
"""A centre in pixels of the frame."""


class TargetState(StrEnum):
    """What the tracker believes of its target."""

    TRACKING = "tracking"
    """The box is the target's."""
    DOUBTFUL = "doubtful"
    """It may not be: the size is frozen, and frames run to full depth."""
    LOST = "lost"
    """It is not: the box stays, and the target is looked for around it."""
    FOUND_AGAIN = "found again"
    """The first frame after being lost; tracking follows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StateConfig:
    """Thresholds, as shares of the target's own level, and how fast a search widens."""

    smoothing: float = 0.4
    """Share of the newest frame in the smoothed predicted IoU."""
    level_rate: float = 0.05
    """Share of the newest frame in the level, which is the first frame's predicted IoU at first."""
    least_level: float = 0.3
    """The level never counts as less: a tracker that is sure of nothing is doubted."""
    doubtful_below: float = 0.8
    """Share of the level under which the box is doubted, by the smoothed predicted IoU."""
    sure_above: float = 0.8
    """Share of the level from which it no longer is."""
    lost_below: float = 0.5
    """Share of the level under which the target is lost."""
    found_above: float = 0.8
    """Share of the level that a place's predicted IoU has to reach for the target to be found
    there."""
    found_frames: int = 2
    """Consecutive frames in which it has to."""
    widen_every: int = 5
    """Frames at each width of the search."""
    most_crops: int = 3
    """Crops in one frame of a search."""

    def __post_init__(self) -> None:
        for name in ("smoothing", "level_rate", "least_level"):
            share = getattr(self, name)
            require(0 < share <= 1, f"{name}: must lie in (0, 1], got {share}")
        require(
            0 <= self.lost_below <= self.doubtful_below <= self.sure_above <= self.found_above <= 1,
            "thresholds: 0 <= lost_below <= doubtful_below <= sure_above <= found_above <= 1 must "
            f"hold, got {self.lost_below}, {self.doubtful_below}, {self.sure_above}, "
            f"{self.found_above}",
        )
        for name in ("found_frames", "widen_every", "most_crops"):
            value = getattr(self, name)
            require(value >= 1, f"{name}: must be at least 1, got {value}")


STATES = StateConfig()
"""The states of a tracker that is told nothing else."""


class StateMachine:
    """The state of one target; keeps four numbers."""

    def __init__(self, config: StateConfig) -> None:
        self.config = config
        self.state = TargetState.TRACKING
        self.smoothed = 1.0
        """Predicted IoU over the last few frames; a target starts where it is known to be."""
        self.level: float | None = None
        """Predicted IoU while this target is tracked; None before its first frame."""
        self.lost_frames = 0
        """Frames since the target was lost."""
        self.confirmed = 0
        """Consecutive frames in which a lost target seemed to be found."""

    def update(self, predicted_iou: float) -> TargetState:
        """Take in a frame's predicted IoU and return the state of that frame."""
        config = self.config
        if self.level is None:
            self.level = predicted_iou
        level = max(self.level, config.least_level)
        if self.state is TargetState.LOST:
            self.lost_frames += 1
            there = predicted_iou >= config.found_above * level
            self.confirmed = self.confirmed + 1 if there else 0
            if self.confirmed >= config.found_frames:
                self.state, self.smoothed = TargetState.FOUND_AGAIN, predicted_iou
            return self.state
        self.smoothed += config.smoothing * (predicted_iou - self.smoothed)
        enough = config.sure_above if self.state is TargetState.DOUBTFUL else config.doubtful_below
        if self.smoothed < config.lost_below * level:
            self.state, self.lost_frames, self.confirmed = TargetState.LOST, 0, 0
        elif self.smoothed < enough * level:
            self.state = TargetState.DOUBTFUL
        else:
            self.state = TargetState.TRACKING
            # Only of frames that are beyond doubt, or the level would follow a target down.
            if self.smoothed >= config.found_above * level:
                self.level += config.level_rate * (predicted_iou - self.level)
        return self.state

    @property
    def widening(self) -> float:
        """The side of the region to search, over that of a search crop: 1.5, 2, 3, 4.5 and on."""
        step = min(self.lost_frames // self.config.widen_every, 40)
        return 1.5 if step == 0 else 2.0 * 1.5 ** (step - 1)


@dataclass(frozen=True, slots=True)
class Looks:
    """Square crops of one size that a frame is searched with."""

    centres: tuple[Place, ...]
    side: float


def looks(
    around: Place, side: float, widening: float, size: tuple[int, int], turn: int, most: int
) -> Looks:
    """Plan the crops of a search.

    Up to twice a search crop's side, the region is one crop. Beyond, crops of the normal side that
    overlap by a quarter (the target's own side, where the search factor is 4) cover what of the
    region lies in the frame. Where that takes more than ``most``, crops grow to at most twice the
    side; where that is not enough, frames take turns.

    Args:
        around: Centre of the region: the last reliable place.
        side: Side of a search crop around the target in pixels.
        widening: Side of the region, over that of a crop.
        size: Width and height of the frame.
        turn: Frames of this search so far.
        most: Crops in one frame.
    """
    if widening <= 2.0:
        return Looks((around,), side * widening)
    half = 0.5 * side * widening
    low = tuple(max(0.0, place - half) for place in around)
    high = tuple(min(float(s), place + half) for place, s in zip(around, size, strict=True))
    lengths = [max(0.0, b - a) for a, b in zip(low, high, strict=True)]
    for growth in (1.0, 1.25, 1.5, 1.75, 2.0):
        grown = side * growth
        counts = [max(1, math.ceil((length / grown - 0.25) / 0.75)) for length in lengths]
        if counts[0] * counts[1] <= most:
            break
    lines = [_spread(a, b, grown, count) for a, b, count in zip(low, high, counts, strict=True)]
    centres = [(x, y) for y in lines[1] for x in lines[0]]
    if len(centres) > most:
        first = turn * most % len(centres)
        centres = (centres + centres)[first : first + most]
    return Looks(tuple(centres), grown)


def _spread(low: float, high: float, side: float, count: int) -> list[float]:
    """Return the centres of ``count`` pieces of length ``side`` that cover a line evenly."""
    if count == 1:
        return [0.5 * (low + high)]
    first, last = low + 0.5 * side, high - 0.5 * side
    return [first + (last - first) * k / (count - 1) for k in range(count)]


def keep_inside(centre: Place, sides: tuple[float, float], size: tuple[int, int]) -> Place:
    """Return the centre nearest to one whose box (w, h) lies in the frame (width, height)."""

    def one(place: float, side: float, length: int) -> float:
        half = 0.5 * min(side, length)
        return min(max(place, half), length - half)

    return one(centre[0], sides[0], size[0]), one(centre[1], sides[1], size[1])

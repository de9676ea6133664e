"""Run the tracker on held-out sequences at an operating point, and sum up what it did."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dytrack_model import Tracker
from dytrack_model.config import require
from dytrack_model.policy import OperatingPoint, Policy
from dytrack_model.runtime.engine import Engine
from dytrack_model.thresholds import risk_bound
from dytrack_platform.datasets.sequence import Pixels, VideoSequence
from dytrack_platform.errors import ConfigurationError, DataError
from dytrack_platform.evaluation.scoring.metrics import columns, overlaps

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """What the operating point must keep: one of three."""

    milliseconds: float | None = None
    """Largest mean time of the network for a frame, measured on this machine."""
    gmacs: float | None = None
    """Largest mean cost of a frame."""
    risk: float | None = None
    """Largest mean regret, in IoU, against full depth; with ``confidence``."""
    confidence: float = 0.9
    """Probability with which the risk is kept."""

    def __post_init__(self) -> None:
        given = [v for v in (self.milliseconds, self.gmacs, self.risk) if v is not None]
        if len(given) != 1:
            raise ConfigurationError(
                "goal: give one of --budget-ms, --budget-gmacs and --risk, "
                f"got {len(given)} of them"
            )
        for name, budget in (("budget-ms", self.milliseconds), ("budget-gmacs", self.gmacs)):
            require(
                budget is None or 0 < budget < math.inf,
                f"--{name}: must be a positive number, got {budget}",
            )
        for name, chance in (("risk", self.risk), ("confidence", self.confidence)):
            require(
                chance is None or 0 < chance < 1,
                f"--{name}: must lie between 0 and 1, got {chance}",
            )

    def require_payable(self, gmacs: Sequence[float], times: Sequence[float]) -> None:
        """Refuse a budget below the first exit's cost, before anything is recorded.

        Raises:
            ConfigurationError: It is below.
        """
        for name, budget, costs in (
            ("budget-ms", self.milliseconds, times),
            ("budget-gmacs", self.gmacs, gmacs),
        ):
            require(
                budget is None or budget >= costs[0],
                f"--{name}: the first exit alone costs {costs[0]:.4g}, so {budget} cannot be kept; "
                "raise it, or train a tracker with a shallower exit",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What a tracker did on the sequences: a promise, or the closed loop."""

    mean_iou: float
    """Mean over sequences of the mean IoU of a sequence's frames."""
    shares: tuple[float, ...]
    """Share of the frames at each exit."""
    gmacs: float
    """Mean of a frame."""
    milliseconds: float
    """Mean of a frame, network only."""
    regret: float
    """Mean over sequences of the regret against full depth."""
    regret_bound: float
    """Upper bound of that mean for new sequences, at the goal's confidence."""


@dataclass(frozen=True, slots=True)
class Loops:
    """Runs the tracker on all sequences, and sums up what it did."""

    engine: Engine
    sequences: Sequence[VideoSequence]
    deep: Sequence[Floats]
    """(N,) of each sequence: true IoU at full depth."""
    gmacs: Sequence[float]
    times: Sequence[float]
    goal: Goal
    tell: Callable[[str, int, int], None]

    def run(self, point: OperatingPoint, what: str) -> Run:
        """Track in closed loop at a point, as a user would."""
        found = []
        for done, sequence in enumerate(self.sequences):
            self.tell(what, done, len(self.sequences))
            found.append(follow(self.engine, point.policy(), sequence))
        ious, exits, extra = (list(column) for column in zip(*found, strict=True))
        # The tracks part ways, so a frame's regret compares the two loops at the same frame.
        lost = [np.maximum(0.0, d - g) for d, g in zip(self.deep, ious, strict=True)]
        return self.sum_up(ious, exits, lost, float(np.concatenate(extra).mean()))

    def sum_up(
        self,
        ious: Sequence[Floats],
        exits: Sequence[Integers],
        losses: Sequence[Floats],
        extra_gmacs: float = 0.0,
    ) -> Run:
        """Return means; heads that ran besides are charged with the network's mean speed."""
        taken = np.concatenate(exits)
        count = len(self.gmacs)
        lost = np.array([loss.mean() for loss in losses])
        extra_times = extra_gmacs * self.times[-1] / self.gmacs[-1]
        return Run(
            mean_iou=float(np.mean([iou.mean() for iou in ious])),
            shares=tuple((np.bincount(taken, minlength=count) / len(taken)).tolist()),
            gmacs=float(np.asarray(self.gmacs)[taken].mean()) + extra_gmacs,
            milliseconds=float(np.asarray(self.times)[taken].mean()) + extra_times,
            regret=float(lost.mean()),
            # The chance that the bound fails, over the draw of calibration sequences.
            regret_bound=risk_bound(lost, 1 - self.goal.confidence),
        )


def follow(
    engine: Engine, policy: Policy, sequence: VideoSequence
) -> tuple[Floats, Integers, Floats]:
    """Track a sequence in closed loop.

    Returns:
        (N,) true IoU, (N,) exit, and (N,) GMACs of the heads that corrections took besides, of
        every frame after the first that has a usable box.
    """
    # Costs are counted by exit, so no state may overrule the point.
    tracker = Tracker(engine, policy, states=None)
    ious, exits, extra = [], [], []
    for image, truth in frames(sequence, tracker):
        track = tracker.step(image)
        if truth is not None:
            ious.append(iou(track.box_xywh, truth))
            exits.append(track.exit_index)
            extra.append(track.extra_gmacs)
    return (
        np.array(ious, dtype=np.float64),
        np.array(exits, dtype=np.int64),
        np.array(extra, dtype=np.float64),
    )


def frames(sequence: VideoSequence, tracker: Tracker) -> Iterator[tuple[Pixels, Floats | None]]:
    """Start the tracker, and give the frames after the first with their box, if usable."""
    boxes = sequence.boxes_xywh
    usable = sequence.visible & np.isfinite(boxes).all(axis=1)
    usable &= (boxes[:, 2] > 0) & (boxes[:, 3] > 0)
    for index, pixels in enumerate(sequence.frames.iterate()):
        if index >= len(boxes):
            return
        if index == 0:
            if pixels is None:
                raise DataError(f"{sequence.name}: frame 1 does not decode, so nothing can start")
            tracker.start(pixels, boxes[0])
        elif pixels is not None:
            yield pixels, boxes[index] if usable[index] else None


def iou(box_xywh: Floats, truth_xywh: Floats) -> float:
    """Return the IoU of two boxes (4,), the annotated one second."""
    return float(overlaps(columns(box_xywh[None]), columns(truth_xywh[None]), "guarded")[0])


def rising(times: Sequence[float]) -> tuple[float, ...]:
    """Make costs rise with depth; a noisy clock can say otherwise for exits close together."""
    return tuple(np.maximum.accumulate(np.asarray(times)).tolist())

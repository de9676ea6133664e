"""Turn held-out sequences and a budget, or a risk, into an operating point, and try it out.

Scores of all exits are recorded along the tracker's full-depth track; thresholds follow from
them (:mod:`dytrack_model.thresholds`). An exit changes the next crop, so what was recorded is
optimistic: the tracker then runs again in closed loop at the chosen thresholds, and that is what
the result reports.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dytrack_model import Tracker, checkpoint
from dytrack_model.config import require
from dytrack_model.cost import exit_gmacs, exit_milliseconds
from dytrack_model.policy import OperatingPoint, Policy
from dytrack_model.runtime import build
from dytrack_model.runtime.engine import Engine
from dytrack_model.thresholds import (
    budget_thresholds,
    exits_taken,
    regret,
    risk_bound,
    risk_thresholds,
    sequences_needed,
)
from dytrack_platform.confidence import calibrate as compare_scores
from dytrack_platform.datasets.sequence import Pixels, VideoSequence
from dytrack_platform.errors import ConfigurationError, DataError
from dytrack_platform.evaluation.scoring.metrics import columns, overlaps
from dytrack_platform.evaluation.tracking.protocol import UNFIT
from dytrack_platform.experiment.evaluate.runtime_config import RuntimeConfig

Floats = NDArray[np.float64]


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibrated:
    """A new operating point and what it gives."""

    point: OperatingPoint
    promised: Run
    """On the recorded crops of the full-depth track."""
    got: Run
    """In closed loop, at the point's thresholds."""
    full: Run
    """In closed loop at full depth."""
    auroc: tuple[float, ...]
    """Of each exit's predicted IoU for a true IoU above 0.5."""
    calibration_error: tuple[float, ...]
    """Expected error of each exit's predicted IoU."""
    sequences: int
    frames: int
    runtime: str
    precision: str
    remark: str
    """What should be known about the result; empty if nothing."""
    problems: tuple[str, ...] = ()
    """Sequences that no tracker could be started on, and why."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; infinity becomes text."""
        return {**asdict(self), "point": self.point.to_dict()}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Observed:
    """One sequence at every exit, along the full-depth track; N frames that have a valid box."""

    predicted: Floats
    """(N, E)"""
    true_iou: Floats
    """(N, E)"""


def calibrate(
    saved: checkpoint.SavedTracker,
    sequences: Sequence[VideoSequence],
    goal: Goal,
    name: str,
    runtime: RuntimeConfig,
    hysteresis: float = 0.0,
    report: Callable[[str, int, int], None] | None = None,
) -> Calibrated:
    """Choose thresholds that keep a goal, and measure what they give.

    Args:
        saved: The tracker.
        sequences: Held out from training; the more, the tighter a risk can be proved.
        goal: What to keep.
        name: Name of the new operating point.
        runtime: Runtime, precision, device and threads; milliseconds are measured on it.
        hysteresis: Margin of the new point.
        report: Called with what is being done and how many of how many sequences are done.

    Raises:
        ConfigurationError: The budget is below the first exit's cost, or the tracker has one exit.
        DataError: No sequence has a usable frame.
    """
    if saved.network.exit_count < 2:
        raise ConfigurationError("model: has one exit; there are no thresholds to choose")
    require(0 <= hysteresis < 1, f"--hysteresis: must lie in [0, 1), got {hysteresis}")
    tell = report or (lambda *_: None)
    engine = build(
        saved.network,
        runtime.runtime,
        runtime.precision,
        runtime.device,
        runtime.threads,
        ranges=saved.ranges,
    )
    gmacs = exit_gmacs(saved.network)
    # Measured here and now: a budget in milliseconds holds for one machine and runtime.
    times = exit_milliseconds(engine, frames=20)
    goal.require_payable(gmacs, times)
    # Record every exit along the full-depth track.
    kept, followed, problems = [], [], []
    for done, sequence in enumerate(sequences):
        tell("recording", done, len(sequences))
        try:
            one = observe(engine, sequence)
        except UNFIT as error:
            problems.append(f"{sequence.name}: {error}")
            continue
        if len(one.predicted):
            kept.append(one)
            followed.append(sequence)
    if not kept:
        first = f"; {problems[0]}" if problems else ""
        raise DataError(f"calibration: no sequence has a second frame with a usable box{first}")
    predicted = np.concatenate([one.predicted for one in kept])
    true = np.concatenate([one.true_iou for one in kept])
    # Choose.
    # The chance that the bound fails, over the draw of calibration sequences.
    delta = 1 - goal.confidence
    thresholds, remark = _choose(goal, kept, gmacs, times, hysteresis)
    point = OperatingPoint(name=name, thresholds=thresholds, hysteresis=hysteresis)
    exits = [exits_taken(one.predicted, thresholds, hysteresis) for one in kept]
    ious = [one.true_iou[np.arange(len(e)), e] for one, e in zip(kept, exits, strict=True)]
    losses = [regret(one.true_iou, e) for one, e in zip(kept, exits, strict=True)]
    promised = _run(ious, exits, losses, gmacs, times, delta)
    # Run again as a user would.
    got_ious, got_exits = [], []
    for done, sequence in enumerate(followed):
        tell("running again", done, len(followed))
        sequence_ious, sequence_exits = follow(engine, point.policy(), sequence)
        got_ious.append(sequence_ious)
        got_exits.append(sequence_exits)
    deep = [one.true_iou[:, -1] for one in kept]
    # The tracks part ways, so a frame's regret compares the two loops at the same frame.
    lost = [np.maximum(0.0, d - g) for d, g in zip(deep, got_ious, strict=True)]
    last = [np.full(len(d), saved.network.exit_count - 1) for d in deep]
    nothing = [np.zeros(len(d)) for d in deep]
    scores = [compare_scores(predicted[:, k], true[:, k]) for k in range(predicted.shape[1])]
    return Calibrated(
        point=point,
        promised=promised,
        got=_run(got_ious, got_exits, lost, gmacs, times, delta),
        full=_run(deep, last, nothing, gmacs, times, delta),
        auroc=tuple(score.auroc for score in scores),
        calibration_error=tuple(score.expected_error for score in scores),
        sequences=len(kept),
        frames=len(predicted),
        runtime=engine.runtime,
        precision=engine.precision,
        remark=remark,
        problems=tuple(problems),
    )


def _choose(
    goal: Goal,
    kept: list[_Observed],
    gmacs: Sequence[float],
    times: Sequence[float],
    hysteresis: float,
) -> tuple[tuple[float, ...], str]:
    predicted = [one.predicted for one in kept]
    if goal.milliseconds is not None:
        return budget_thresholds(predicted, _rising(times), goal.milliseconds, hysteresis), ""
    if goal.gmacs is not None:
        return budget_thresholds(predicted, gmacs, goal.gmacs, hysteresis), ""
    assert goal.risk is not None  # Goal has one of the three
    delta = 1 - goal.confidence
    certified = risk_thresholds(
        predicted, [one.true_iou for one in kept], goal.risk, delta, hysteresis
    )
    remark = ""
    if np.isinf(certified.thresholds[0]):
        needed = sequences_needed(goal.risk, delta)
        remark = (
            f"no exit before the last could be proved to stay within a risk of {goal.risk:g} with "
            f"{len(kept)} sequences: that takes {needed} of them even if none loses anything"
        )
    return certified.thresholds, remark


def observe(engine: Engine, sequence: VideoSequence) -> _Observed:
    """Run every exit on every frame, following the deepest.

    Raises:
        DataError: The first frame does not decode, or the first box is unusable.
    """
    tracker = Tracker(engine, states=None)
    predicted, true = [], []
    for image, truth in _frames(sequence, tracker):
        tracks = tracker.step_all(image)
        if truth is not None:
            predicted.append([track.predicted_iou for track in tracks])
            true.append([_iou(track.box_xywh, truth) for track in tracks])
    exits = engine.exit_count
    return _Observed(
        predicted=np.array(predicted, dtype=np.float64).reshape(-1, exits),
        true_iou=np.array(true, dtype=np.float64).reshape(-1, exits),
    )


def follow(
    engine: Engine, policy: Policy, sequence: VideoSequence
) -> tuple[Floats, NDArray[np.int64]]:
    """Track a sequence in closed loop.

    Returns:
        (N,) true IoU and (N,) exit of every frame after the first that has a usable box.
    """
    # Costs are counted by exit, so no state may overrule the point.
    tracker = Tracker(engine, policy, states=None)
    ious, exits = [], []
    for image, truth in _frames(sequence, tracker):
        track = tracker.step(image)
        if truth is not None:
            ious.append(_iou(track.box_xywh, truth))
            exits.append(track.exit_index)
    return np.array(ious, dtype=np.float64), np.array(exits, dtype=np.int64)


def _frames(sequence: VideoSequence, tracker: Tracker) -> Iterator[tuple[Pixels, Floats | None]]:
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


def _iou(box_xywh: Floats, truth_xywh: Floats) -> float:
    return float(overlaps(columns(box_xywh[None]), columns(truth_xywh[None]), "guarded")[0])


def _run(
    ious: Sequence[Floats],
    exits: Sequence[NDArray[np.int64]],
    losses: Sequence[Floats],
    gmacs: Sequence[float],
    times: Sequence[float],
    delta: float,
) -> Run:
    taken = np.concatenate(exits)
    count = len(gmacs)
    lost = np.array([loss.mean() for loss in losses])
    return Run(
        mean_iou=float(np.mean([iou.mean() for iou in ious])),
        shares=tuple((np.bincount(taken, minlength=count) / len(taken)).tolist()),
        gmacs=float(np.asarray(gmacs)[taken].mean()),
        milliseconds=float(np.asarray(times)[taken].mean()),
        regret=float(lost.mean()),
        regret_bound=risk_bound(lost, delta),
    )


def _rising(times: Sequence[float]) -> tuple[float, ...]:
    """Costs must rise with depth; a noisy clock can say otherwise for exits close together."""
    return tuple(np.maximum.accumulate(np.asarray(times)).tolist())

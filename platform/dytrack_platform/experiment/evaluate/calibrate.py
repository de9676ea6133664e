"""Turn held-out sequences and a budget, or a risk, into an operating point, and try it out.

Scores of all exits are recorded along the tracker's full-depth track; thresholds follow from
them (:mod:`dytrack_model.thresholds`). An exit changes the next crop, so what was recorded is
optimistic: the tracker then runs again in closed loop at the chosen thresholds, and that is what
the result reports.

A rule by value has one number to choose, its price, which is found in closed loop alone
(:mod:`~dytrack_platform.experiment.evaluate.price`).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dytrack_model import Tracker, checkpoint
from dytrack_model.config import require
from dytrack_model.cost import exit_gmacs, exit_milliseconds, planned_gmacs
from dytrack_model.policy import OperatingPoint
from dytrack_model.runtime import build
from dytrack_model.runtime.engine import Engine
from dytrack_model.thresholds import (
    budget_thresholds,
    exits_taken,
    regret,
    risk_thresholds,
)
from dytrack_platform.confidence import calibrate as compare_scores
from dytrack_platform.datasets.sequence import VideoSequence
from dytrack_platform.errors import ConfigurationError, DataError
from dytrack_platform.evaluation.tracking.protocol import UNFIT
from dytrack_platform.experiment.evaluate.closed_loops import (
    Floats,
    Goal,
    Loops,
    Run,
    frames,
    iou,
    rising,
)
from dytrack_platform.experiment.evaluate.price import ByValue, priced, unproved
from dytrack_platform.experiment.evaluate.runtime_config import RuntimeConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibrated:
    """A new operating point and what it gives."""

    point: OperatingPoint
    promised: Run | None
    """On the recorded crops of the full-depth track; None for a rule by value."""
    got: Run
    """In closed loop, at the point's thresholds or price."""
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
    by_value: ByValue | None = None,
) -> Calibrated:
    """Choose thresholds, or a price, that keep a goal, and measure what they give.

    Args:
        saved: The tracker.
        sequences: Held out from training; the more, the tighter a risk can be proved.
        goal: What to keep.
        name: Name of the new operating point.
        runtime: Runtime, precision, device and threads; milliseconds are measured on it.
        hysteresis: Margin of the new point.
        report: Called with what is being done and how many of how many sequences are done.
        by_value: Find a price for this rule, in place of thresholds.

    Raises:
        ConfigurationError: The budget is below the first exit's cost, or below that of a rule's
            scheduled frames; the tracker has one exit; or a rule by value is to have hysteresis.
        DataError: No sequence has a usable frame.
    """
    if saved.network.exit_count < 2:
        raise ConfigurationError("model: has one exit; there are no thresholds to choose")
    require(0 <= hysteresis < 1, f"--hysteresis: must lie in [0, 1), got {hysteresis}")
    require(
        by_value is None or hysteresis == 0,
        f"--hysteresis: moves thresholds, and a rule by value has none, got {hysteresis}",
    )
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
    cheapest = 1.0  # share of the cost of a frame over the whole search region
    if by_value is not None and by_value.narrow:
        cheapest = planned_gmacs(saved.network.config.narrowed())[0] / gmacs[0]
    goal.require_payable([gmacs[0] * cheapest], [times[0] * cheapest])
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
    deep = [one.true_iou[:, -1] for one in kept]
    loops = Loops(engine, followed, deep, gmacs, times, goal, tell)
    promised, remark = None, ""
    if by_value is not None:
        point, got, remark = priced(loops, by_value, name)
    else:
        thresholds, remark = _choose(goal, kept, gmacs, times, hysteresis)
        point = OperatingPoint(name=name, thresholds=thresholds, hysteresis=hysteresis)
        exits = [exits_taken(one.predicted, thresholds, hysteresis) for one in kept]
        ious = [one.true_iou[np.arange(len(e)), e] for one, e in zip(kept, exits, strict=True)]
        losses = [regret(one.true_iou, e) for one, e in zip(kept, exits, strict=True)]
        promised = loops.sum_up(ious, exits, losses)
        got = loops.run(point, "running again")
    last = [np.full(len(d), saved.network.exit_count - 1) for d in deep]
    nothing = [np.zeros(len(d)) for d in deep]
    scores = [compare_scores(predicted[:, k], true[:, k]) for k in range(predicted.shape[1])]
    return Calibrated(
        point=point,
        promised=promised,
        got=got,
        full=loops.sum_up(deep, last, nothing),
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
        return budget_thresholds(predicted, rising(times), goal.milliseconds, hysteresis), ""
    if goal.gmacs is not None:
        return budget_thresholds(predicted, gmacs, goal.gmacs, hysteresis), ""
    assert goal.risk is not None  # Goal has one of the three
    delta = 1 - goal.confidence
    certified = risk_thresholds(
        predicted, [one.true_iou for one in kept], goal.risk, delta, hysteresis
    )
    remark = ""
    if np.isinf(certified.thresholds[0]):
        remark = unproved(goal, goal.risk, len(kept))
    return certified.thresholds, remark


def observe(engine: Engine, sequence: VideoSequence) -> _Observed:
    """Run every exit on every frame, following the deepest.

    Raises:
        DataError: The first frame does not decode, or the first box is unusable.
    """
    tracker = Tracker(engine, states=None)
    predicted, true = [], []
    for image, truth in frames(sequence, tracker):
        tracks = tracker.step_all(image)
        if truth is not None:
            predicted.append([track.predicted_iou for track in tracks])
            true.append([iou(track.box_xywh, truth) for track in tracks])
    exits = engine.exit_count
    return _Observed(
        predicted=np.array(predicted, dtype=np.float64).reshape(-1, exits),
        true_iou=np.array(true, dtype=np.float64).reshape(-1, exits),
    )

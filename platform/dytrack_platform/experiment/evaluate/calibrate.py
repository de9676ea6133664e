"""Turn held-out sequences and a budget, or a risk, into an operating point, and try it out.

Scores of all exits are recorded along the tracker's full-depth track; thresholds follow from
them (:mod:`dytrack_model.thresholds`). An exit changes the next crop, so what was recorded is
optimistic: the tracker then runs again in closed loop at the chosen thresholds, and that is what
the result reports.

A rule by value (:mod:`dytrack_model.depth_value`) has one number to choose, its price. What it
gives depends on the frames that ran to full depth before, which no recording knows, so the price
is found in closed loop alone: the tracker runs at several prices, each time on all sequences.
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
from dytrack_model.depth_value import ValueRule
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
Integers = NDArray[np.int64]

_PRICES = (1e-4, 4.0)
"""Between them a price is looked for: values are differences of IoUs, so the upper one buys
nothing that is not scheduled, and the lower one everything that is worth anything."""
_TRIES = 8
"""Runs of the tracker; each halves the range of the price's logarithm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ByValue:
    """A rule by value whose price is to be found."""

    weights: tuple[tuple[float, ...], ...]
    """(E - 1, FEATURES) as in :class:`~dytrack_model.depth_value.ValueRule`."""
    audit_every: int = 15
    """Frames after which full depth is run whatever the value."""

    def __post_init__(self) -> None:
        require(
            self.audit_every >= 1,
            f"--audit-every: must be at least 1 frame, got {self.audit_every}",
        )


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
    deep = [one.true_iou[:, -1] for one in kept]
    loops = _Loops(engine, followed, deep, gmacs, times, goal, tell)
    promised, remark = None, ""
    if by_value is not None:
        point, got, remark = _priced(loops, by_value, name)
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
        remark = _unproved(goal, goal.risk, len(kept))
    return certified.thresholds, remark


def _unproved(goal: Goal, risk: float, sequences: int) -> str:
    needed = sequences_needed(risk, 1 - goal.confidence)
    return (
        f"no exit before the last could be proved to stay within a risk of {risk:g} with "
        f"{sequences} sequences: that takes {needed} of them even if none loses anything"
    )


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
) -> tuple[Floats, Integers, Floats]:
    """Track a sequence in closed loop.

    Returns:
        (N,) true IoU, (N,) exit, and (N,) GMACs of the heads that corrections took besides, of
        every frame after the first that has a usable box.
    """
    # Costs are counted by exit, so no state may overrule the point.
    tracker = Tracker(engine, policy, states=None)
    ious, exits, extra = [], [], []
    for image, truth in _frames(sequence, tracker):
        track = tracker.step(image)
        if truth is not None:
            ious.append(_iou(track.box_xywh, truth))
            exits.append(track.exit_index)
            extra.append(track.extra_gmacs)
    return (
        np.array(ious, dtype=np.float64),
        np.array(exits, dtype=np.int64),
        np.array(extra, dtype=np.float64),
    )


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


@dataclass(frozen=True, slots=True)
class _Loops:
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


def _priced(loops: _Loops, rule: ByValue, name: str) -> tuple[OperatingPoint, Run, str]:
    """Find the lowest price within a budget, or the highest one within a risk.

    Raises:
        ConfigurationError: The frames that run to full depth by schedule break the budget alone.
    """
    goal = loops.goal
    costs = _rising(loops.gmacs if goal.milliseconds is None else loops.times)
    relative = tuple(cost / costs[-1] for cost in costs)

    def at(price: float) -> OperatingPoint:
        value = ValueRule(
            weights=rule.weights, costs=relative, price=price, audit_every=rule.audit_every
        )
        # Thresholds are not read where there is a value; they say the first exit.
        zeros = (0.0,) * len(rule.weights)
        return OperatingPoint(name=name, thresholds=zeros, value=value)

    def keeps(run: Run) -> bool:
        if goal.milliseconds is not None:
            return run.milliseconds <= goal.milliseconds
        if goal.gmacs is not None:
            return run.gmacs <= goal.gmacs
        assert goal.risk is not None  # Goal has one of the three
        return run.regret_bound <= goal.risk

    low, high = _PRICES
    # A high price is cheap and a low one is safe: the end that keeps the goal is tried first.
    by_budget = goal.risk is None
    best = at(high if by_budget else 0.0)
    result = loops.run(best, f"price 1 of {_TRIES}")
    if not keeps(result):
        if by_budget:
            unit = "ms" if goal.milliseconds is not None else "GMACs"
            cost = result.milliseconds if goal.milliseconds is not None else result.gmacs
            raise ConfigurationError(
                f"--audit-every: full depth in one frame of {rule.audit_every} costs {cost:.4g} "
                f"{unit} by itself, above the budget; look less often, or raise the budget"
            )
        assert goal.risk is not None  # there is a budget otherwise
        return best, result, _unproved(goal, goal.risk, len(loops.sequences))
    for done in range(1, _TRIES):
        price = math.sqrt(low * high)
        tried = at(price)
        run = loops.run(tried, f"price {done + 1} of {_TRIES}")
        if keeps(run):
            best, result = tried, run
        if keeps(run) == by_budget:
            high = price
        else:
            low = price
    return best, result, ""


def _rising(times: Sequence[float]) -> tuple[float, ...]:
    """Costs must rise with depth; a noisy clock can say otherwise for exits close together."""
    return tuple(np.maximum.accumulate(np.asarray(times)).tolist())

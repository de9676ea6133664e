"""Policies that change while a stream runs: to keep a budget, or to follow what audits say."""

from collections.abc import Sequence
from dataclasses import replace

from dytrack_model.ambiguity import CLEAR, Ambiguity
from dytrack_model.policy import FULL, FixedExit, OperatingPoint, Policy, find_point
from dytrack_model.prediction import Audit

_PATIENCE = 10
"""Frames within the budget before the next deeper level is tried."""
_HEADROOM = 0.7
"""Share of the budget under which there is room for more."""


class Paced:
    """Moves between a tracker's operating points so that answers come within a budget.

    One frame over the budget makes it shallower by one level; ten in a row well within make it
    deeper by one, and every relapse doubles that patience, so that it does not swing. Our choice.

    Args:
        points: In any order.
        exit_count: Exits of the tracker.
        budget_ms: Time from a frame's arrival to its answer.
    """

    def __init__(self, points: Sequence[OperatingPoint], exit_count: int, budget_ms: float) -> None:
        whole = find_point((), FULL, exit_count)
        ordered = sorted(points, key=lambda point: point.eagerness, reverse=True)
        named = [(point.name, point.policy()) for point in (*ordered, whole)]
        # The cheapest of all: the first exit, over the narrow region where some point looks at it.
        narrow = any(point.narrow for point in points)
        first = FixedExit(0, narrow=narrow)
        self._levels: list[tuple[str, Policy]] = [("first exit", first), *named]
        self.budget_ms = budget_ms
        self.level = (len(self._levels) - 1) // 2
        self._within, self._patience = 0, _PATIENCE

    @property
    def name(self) -> str:
        """Name of the level that is kept at the moment."""
        return self._levels[self.level][0]

    def observe(self, milliseconds: float) -> None:
        """Take in how long a frame's answer took."""
        if milliseconds > self.budget_ms:
            if self.level > 0:
                self.level -= 1
            self._within, self._patience = 0, min(self._patience * 2, 1000)
        elif milliseconds < _HEADROOM * self.budget_ms:
            self._within += 1
            if self._within >= self._patience and self.level < len(self._levels) - 1:
                self.level, self._within = self.level + 1, 0

    @property
    def _now(self) -> Policy:
        return self._levels[self.level][1]

    @property
    def reads_score(self) -> bool:
        """Some level may."""
        return True

    @property
    def varies(self) -> bool:
        """Levels differ in depth."""
        return True

    @property
    def reads_head(self) -> bool:
        """Where the level that is kept does."""
        return self._now.reads_head

    @property
    def narrow(self) -> bool:
        """Where the level that is kept is."""
        return self._now.narrow

    @property
    def learns_from_depth(self) -> bool:
        """Where some level does."""
        return any(policy.learns_from_depth for _, policy in self._levels)

    def begin_target(self) -> None:
        """Every level forgets."""
        for _, policy in self._levels:
            policy.begin_target()

    def begin_frame(self) -> None:
        """Every level hears of it."""
        for _, policy in self._levels:
            policy.begin_frame()

    def leave(self, exit_index: int, predicted_iou: float, ambiguity: Ambiguity = CLEAR) -> bool:
        """Ask the level that is kept."""
        return self._now.leave(exit_index, predicted_iou, ambiguity)

    def full_depth(self, predicted_iou: Sequence[float], agreement: Sequence[float]) -> None:
        """Every level hears of it: (E,) and (E - 1,)."""
        for _, policy in self._levels:
            policy.full_depth(predicted_iou, agreement)


class Audits:
    """What audits say of one stream: how well shallow boxes agree with deep ones, and the drift.

    Two means of the agreement run along, one slow and one fast; the drift is how far the fast one
    is below the slow one.
    """

    _SLOW, _FAST = 0.02, 0.2
    GOAL = 0.85
    """Agreement under which corrected thresholds rise."""
    _STEP, _MOST = 0.02, 0.4

    def __init__(self) -> None:
        self.count = 0
        self._slow = self._fast = 0.0
        self.raised = 0.0
        """How much thresholds are raised, where they follow the audits."""

    @property
    def agreement(self) -> float:
        """Mean IoU of shallow boxes with deep ones; NaN before the first audit."""
        return self._fast if self.count else float("nan")

    @property
    def drift(self) -> float:
        """How much the agreement fell lately; at least 0."""
        return max(0.0, self._slow - self._fast)

    def take(self, audit: Audit) -> None:
        """Take in one audit."""
        if not self.count:
            self._slow = self._fast = audit.agreement
        self.count += 1
        self._slow += self._SLOW * (audit.agreement - self._slow)
        self._fast += self._FAST * (audit.agreement - self._fast)
        wanted = self._STEP if self._fast < self.GOAL else -self._STEP / 2
        self.raised = min(max(0.0, self.raised + wanted), self._MOST)

    def corrected(self, point: OperatingPoint) -> OperatingPoint:
        """Return an operating point that goes deeper by as much as the audits ask for.

        Thresholds that decide (between 0 and infinity) rise; a price of depth falls by that share.
        """
        if self.raised == 0:
            return point
        if point.value is not None:
            value = replace(point.value, price=point.value.price * (1 - self.raised))
            return replace(point, value=value)
        raised = tuple(
            min(limit + self.raised, 1.0) if 0 < limit <= 1 else limit for limit in point.thresholds
        )
        return replace(point, thresholds=raised)

"""The price of depth that keeps a goal, found by running the tracker at several.

A rule by value (:mod:`dytrack_model.depth_value`) has one number to choose, its price. What it
gives depends on the frames that ran to full depth before, which no recording knows, so the price
is found in closed loop alone: the tracker runs at several prices, each time on all sequences.
"""

import math
from dataclasses import dataclass

from dytrack_model.config import require
from dytrack_model.depth_value import AUDIT_EVERY, ValueRule
from dytrack_model.policy import OperatingPoint
from dytrack_model.thresholds import sequences_needed
from dytrack_platform.errors import ConfigurationError
from dytrack_platform.experiment.evaluate.closed_loops import Goal, Loops, Run, rising

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
    audit_every: int = AUDIT_EVERY
    """Frames after which full depth is run whatever the value."""
    narrow: bool = False
    """Whether the point is to look at the narrow search region."""

    def __post_init__(self) -> None:
        require(
            self.audit_every >= 1,
            f"--audit-every: must be at least 1 frame, got {self.audit_every}",
        )


def priced(loops: Loops, rule: ByValue, name: str) -> tuple[OperatingPoint, Run, str]:
    """Find the lowest price within a budget, or the highest one within a risk.

    Raises:
        ConfigurationError: The frames that run to full depth by schedule break the budget alone.
    """
    goal = loops.goal
    costs = rising(loops.gmacs if goal.milliseconds is None else loops.times)
    relative = tuple(cost / costs[-1] for cost in costs)

    def at(price: float) -> OperatingPoint:
        value = ValueRule(
            weights=rule.weights, costs=relative, price=price, audit_every=rule.audit_every
        )
        # Thresholds are not read where there is a value; they say the first exit.
        zeros = (0.0,) * len(rule.weights)
        return OperatingPoint(name=name, thresholds=zeros, value=value, narrow=rule.narrow)

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
        return best, result, unproved(goal, goal.risk, len(loops.sequences))
    for done in range(1, _TRIES):
        price = math.sqrt(low * high)
        tried = at(price)
        run = loops.run(tried, f"price {done + 1} of {_TRIES}")
        kept = keeps(run)
        if kept:
            best, result = tried, run
        if kept == by_budget:
            high = price
        else:
            low = price
    return best, result, ""


def unproved(goal: Goal, risk: float, sequences: int) -> str:
    """Say that no early exit could be proved to keep a risk, and what that would take."""
    needed = sequences_needed(risk, 1 - goal.confidence)
    return (
        f"no exit before the last could be proved to stay within a risk of {risk:g} with "
        f"{sequences} sequences: that takes {needed} of them even if none loses anything"
    )

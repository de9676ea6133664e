"""The price of depth is found by running the tracker; here a formula stands for its runs."""

from dataclasses import dataclass, field

import pytest

from dytrack_model.depth_value import drop_weights
from dytrack_platform.errors import ConfigurationError
from dytrack_platform.experiment.evaluate.closed_loops import Goal, Run
from dytrack_platform.experiment.evaluate.price import ByValue, priced

RULE = ByValue(weights=drop_weights(2), audit_every=10)


@dataclass
class Loops:
    """A tracker that runs a share of its frames to full depth, the more the lower the price."""

    goal: Goal
    gmacs: tuple[float, ...] = (1.0, 3.0)
    times: tuple[float, ...] = (10.0, 20.0)
    sequences: tuple[str, ...] = ("a", "b")
    unproved: float = 0.0
    prices: list[float] = field(default_factory=list)

    def run(self, point, what):
        price = point.value.price
        self.prices.append(price)
        deep = max(0.1, 1 / (1 + 100 * price))
        return Run(
            mean_iou=0.5,
            shares=(1 - deep, deep),
            gmacs=1 + 2 * deep,
            milliseconds=10 + 10 * deep,
            regret=0.1 * (1 - deep),
            regret_bound=0.1 * (1 - deep) + self.unproved,
        )


@pytest.mark.parametrize(
    ("goal", "share"),
    [
        (Goal(gmacs=1.6), 0.3),
        (Goal(milliseconds=15.0), 0.5),
        (Goal(risk=0.04), 0.6),
    ],
)
def test_as_much_or_as_little_depth_as_the_goal_allows(goal, share):
    loops = Loops(goal)
    point, run, remark = priced(loops, RULE, "x")
    assert not remark
    assert point.value.audit_every == 10
    assert run.shares[1] == pytest.approx(share, abs=0.03)
    # The goal is kept: a budget from below, a risk from above.
    assert run.shares[1] <= share if goal.risk is None else run.shares[1] >= share
    assert len(loops.prices) == 8
    relative = 1 / 3 if goal.milliseconds is None else 1 / 2
    assert point.value.costs == pytest.approx((relative, 1.0))


def test_a_budget_below_the_scheduled_frames_is_refused_after_one_run():
    loops = Loops(Goal(gmacs=1.15))
    with pytest.raises(ConfigurationError, match=r"one frame of 10 costs 1\.2 GMACs by itself"):
        priced(loops, RULE, "x")
    assert len(loops.prices) == 1


def test_a_risk_that_cannot_be_proved_leaves_full_depth():
    point, _, remark = priced(Loops(Goal(risk=0.04), unproved=0.2), RULE, "x")
    assert point.value.price == 0
    assert "could be proved" in remark

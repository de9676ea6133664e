import math

import numpy as np
import pytest

from dytrack_model.errors import ConfigurationError
from dytrack_model.policy import OperatingPoint
from dytrack_model.thresholds import (
    budget_thresholds,
    exits_taken,
    quantile_thresholds,
    regret,
    risk_bound,
    risk_thresholds,
    sequences_needed,
)

COSTS = (1.0, 2.0, 4.0)


@pytest.fixture
def scores():
    return np.random.default_rng(0).random((10_000, 3))


def mean_cost(scores, thresholds):
    return np.asarray(COSTS)[exits_taken(scores, thresholds)].mean()


def test_a_frame_takes_the_first_exit_that_reaches_its_threshold():
    scores = np.array([[0.9, 0.9, 0.0], [0.1, 0.9, 0.0], [0.1, 0.1, 0.0]])
    assert exits_taken(scores, (0.5, 0.5)).tolist() == [0, 1, 2]
    assert exits_taken(scores, (math.inf, math.inf)).tolist() == [2, 2, 2]
    assert exits_taken(scores, (0.0, 0.0)).tolist() == [0, 0, 0]


def test_quantiles_give_each_exit_its_share(scores):
    taken = exits_taken(scores, quantile_thresholds(scores, (0.5, 0.3, 0.2)))
    shares = np.bincount(taken, minlength=3) / len(scores)
    np.testing.assert_allclose(shares, (0.5, 0.3, 0.2), atol=0.01)


@pytest.mark.parametrize("budget", [1.0, 1.3, 2.0, 3.1, 3.9])
def test_a_budget_is_kept_and_nearly_spent(scores, budget):
    spent = mean_cost(scores, budget_thresholds([scores], COSTS, budget))
    assert budget - 0.02 < spent <= budget


def test_with_hysteresis_the_policy_itself_is_asked():
    policy = OperatingPoint(name="p", thresholds=(0.5, 0.6), hysteresis=0.1).policy()
    policy.begin_target()
    scores = np.random.default_rng(1).random((200, 3))
    expected = []
    for one in scores:
        policy.begin_frame()
        expected.append(next((k for k in range(2) if policy.leave(k, one[k])), 2))
    assert exits_taken(scores, (0.5, 0.6), 0.1).tolist() == expected
    assert exits_taken(scores, (0.5, 0.6)).tolist() != expected


def test_a_budget_is_kept_by_the_policy_with_hysteresis():
    walk = np.random.default_rng(2).normal(0, 0.05, (4, 300, 3)).cumsum(axis=1)
    sequences = list(1 / (1 + np.exp(-walk)))
    for budget in (1.5, 2.5):
        limits = budget_thresholds(sequences, COSTS, budget, hysteresis=0.15)
        taken = np.concatenate([exits_taken(one, limits, 0.15) for one in sequences])
        spent = np.asarray(COSTS)[taken].mean()
        assert budget - 0.2 < spent <= budget


def test_what_is_certified_with_hysteresis_is_the_policy_that_runs():
    rng = np.random.default_rng(3)
    predicted = [rng.random((60, 2)) for _ in range(60)]
    true = [np.column_stack([one[:, 0], np.ones(60)]) for one in predicted]
    found = risk_thresholds(predicted, true, 0.3, 0.1, hysteresis=0.2)
    losses = [
        regret(t, exits_taken(p, found.thresholds, 0.2)).mean()
        for p, t in zip(predicted, true, strict=True)
    ]
    assert found.risk == pytest.approx(np.mean(losses))
    assert found.bound == pytest.approx(risk_bound(np.array(losses), 0.1))
    assert found.thresholds != risk_thresholds(predicted, true, 0.3, 0.1).thresholds


def test_a_budget_for_full_depth_gives_full_depth(scores):
    assert budget_thresholds([scores], COSTS, 4.0) == (math.inf, math.inf)


def test_a_budget_below_the_first_exit_is_refused(scores):
    with pytest.raises(ConfigurationError, match="the first exit alone costs 1"):
        budget_thresholds([scores], COSTS, 0.5)


def test_regret_is_what_full_depth_would_have_been_better_by():
    true = np.array([[0.2, 0.5, 0.7], [0.8, 0.5, 0.7]])
    np.testing.assert_allclose(regret(true, np.array([0, 0])), [0.5, 0.0])


@pytest.mark.parametrize("mean", [0.02, 0.2])
def test_the_bound_holds_as_often_as_it_promises(mean):
    """Counted over 400 draws of 30 sequences; a bound that failed more often would be no bound."""
    rng = np.random.default_rng(1)
    failures = 0
    for _ in range(400):
        losses = rng.beta(mean * 2, (1 - mean) * 2, 30)
        failures += risk_bound(losses, 0.1) < mean
    assert failures / 400 <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 400)


def test_the_bound_tightens_with_sequences_and_never_undercuts_the_mean():
    rng = np.random.default_rng(2)
    losses = rng.random(200) * 0.1
    bounds = [risk_bound(losses[:count], 0.1) for count in (5, 20, 80, 200)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] > losses.mean()
    assert risk_bound(np.zeros(0), 0.1) == 1.0


@pytest.mark.slow
def test_a_certified_threshold_keeps_the_risk_on_new_sequences():
    """The promise itself: the risk on 500 new sequences exceeds epsilon in at most delta."""
    rng = np.random.default_rng(3)

    def draw(count):
        said, true = [], []
        for _ in range(count):
            hard = rng.random((30, 1))
            iou = np.clip(1 - hard * np.array([1.0, 0.7, 0.5]), 0, 1)
            said.append(np.clip(iou + 0.05 * rng.standard_normal(iou.shape), 0, 1))
            true.append(iou)
        return said, true

    said, true = (np.concatenate(some) for some in draw(500))
    broken = 0
    for _ in range(30):
        chosen = risk_thresholds(*draw(60), epsilon=0.1, delta=0.1)
        assert chosen.risk <= chosen.bound <= 0.1
        assert np.isfinite(chosen.thresholds).all()
        losses = regret(true, exits_taken(said, chosen.thresholds))  # sequences are of one length
        broken += losses.mean() > 0.1
    assert broken / 30 <= 0.1


def test_too_few_sequences_prove_nothing_and_full_depth_remains():
    said, true = [np.ones((10, 3))] * 4, [np.ones((10, 3))] * 4
    chosen = risk_thresholds(said, true, epsilon=0.05, delta=0.1)
    assert chosen.thresholds == (math.inf, math.inf)
    needed = sequences_needed(0.05, 0.1)
    assert risk_bound(np.zeros(needed - 1), 0.1) > 0.05
    assert needed > 4
    assert risk_bound(np.zeros(needed), 0.1) <= 0.05


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 0.1), (0.1, 1.0)])
def test_a_risk_outside_its_range_is_refused(epsilon, delta):
    with pytest.raises(ConfigurationError, match="must lie between 0 and 1"):
        risk_thresholds([np.ones((2, 2))], [np.ones((2, 2))], epsilon, delta)


def test_a_share_of_nothing_lets_nobody_leave():
    predicted = np.random.default_rng(0).random((1000, 3))
    taken = exits_taken(predicted, quantile_thresholds(predicted, (0.0, 0.4, 0.6)))
    assert np.bincount(taken, minlength=3).tolist() == [0, 400, 600]


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0.9, 0.5), (0.5, 0.2), (0.3, 0.05), (0.2, 0.1), (0.1, 0.1), (0.05, 0.1)]
)
def test_as_many_sequences_are_needed_as_the_bound_itself_says(epsilon, delta):
    first = next(n for n in range(1, 200) if risk_bound(np.zeros(n), delta) <= epsilon)
    assert sequences_needed(epsilon, delta) == first


def test_wealth_on_the_way_counts_and_not_only_what_is_left():
    """Twelve whole losses after sixty sequences without any do not take back what was proved."""
    assert risk_bound(np.r_[np.zeros(60), np.ones(12)], 0.1) == pytest.approx(0.0400, abs=1e-4)
    assert risk_bound(np.linspace(0, 0.2, 40), 0.1) == pytest.approx(0.1572, abs=1e-4)

import json

import numpy as np
import pytest

from dytrack_model.ambiguity import Ambiguity
from dytrack_model.depth_value import (
    FEATURES,
    ValueOfDepth,
    ValueRule,
    ambiguity_weights,
    drop_weights,
)
from dytrack_model.errors import ConfigurationError
from dytrack_model.policy import OperatingPoint, find_point

INFINITE = float("inf")


def rule(price, audit_every=20, weights=None):
    rows = ((0.1,) * FEATURES,) * 2 if weights is None else weights
    return ValueRule(weights=rows, costs=(0.4, 0.6, 1.0), price=price, audit_every=audit_every)


def run(policy, frames, seed=0):
    """Return the exits that a policy takes on random scores."""
    rng = np.random.default_rng(seed)
    policy.begin_target()
    taken = []
    for _ in range(frames):
        scores = rng.uniform(size=3)
        policy.begin_frame()
        exit_index = next((k for k in range(2) if policy.leave(k, scores[k])), 2)
        if exit_index == 2 and policy.learns_from_depth:
            policy.full_depth(scores.tolist(), rng.uniform(size=2).tolist())
        taken.append(exit_index)
    return np.array(taken)


@pytest.mark.parametrize("audit_every", [1, 2, 7, 20])
@pytest.mark.parametrize("price", [0.1, 0.5, 3.0, INFINITE])
def test_full_depth_is_looked_at_every_so_many_frames_at_least(price, audit_every):
    deep = np.flatnonzero(run(ValueOfDepth(rule(price, audit_every)), 300) == 2)
    assert deep[0] == 0
    assert np.diff(deep).max() <= audit_every


@pytest.mark.parametrize("weight", [0.1, 0.0, -5.0])
def test_depth_that_costs_nothing_is_always_taken(weight):
    policy = ValueOfDepth(rule(0.0, weights=((weight,) * FEATURES,) * 2))
    assert (run(policy, 100) == 2).all()
    assert not policy.varies
    assert not policy.learns_from_depth


def test_depth_beyond_price_is_taken_at_audits_alone():
    taken = run(ValueOfDepth(rule(INFINITE, 10)), 100)
    assert np.flatnonzero(taken == 2).tolist() == list(range(0, 100, 10))
    assert set(taken[taken < 2]) == {0}


def test_a_higher_price_is_never_deeper_on_the_same_frames():
    means = [run(ValueOfDepth(rule(p)), 200).mean() for p in (0.0, 0.2, 0.5, 1.0, INFINITE)]
    assert means == sorted(means, reverse=True)
    assert means[0] > means[2] > means[-1]


def test_a_new_target_begins_without_a_memory():
    policy = ValueOfDepth(rule(INFINITE))
    assert run(policy, 5).tolist() == run(policy, 5).tolist() == [2, 0, 0, 0, 0]


def test_an_ambiguity_above_its_price_goes_deeper_at_each_exit():
    policy = ValueOfDepth(
        rule(0.5, weights=ambiguity_weights(3))
    )  # worth .3 at the first, .2 at the next
    assert policy.reads_head
    policy.begin_target()
    policy.begin_frame()
    assert not policy.leave(0, 0.9, Ambiguity(0.0, 0.0, 0.0))  # a target's first frame
    policy.full_depth([0.9, 0.9, 0.9], [1.0, 1.0])
    policy.begin_frame()
    for exit_index, limit in ((0, 0.3), (1, 0.2)):
        assert policy.leave(exit_index, 0.1, Ambiguity(limit - 0.01, 0.0, 0.0))
        assert not policy.leave(exit_index, 0.9, Ambiguity(limit + 0.01, 0.0, 0.0))
        assert not policy.leave(exit_index, 0.9, Ambiguity(limit - 0.1, 0.12, 0.12))
        assert policy.leave(exit_index, 0.9, Ambiguity(limit - 0.1, 0.08, 0.08))


def test_only_a_rule_that_weighs_risks_has_heads_run_for_them():
    assert not ValueOfDepth(rule(0.5, weights=drop_weights(3))).reads_head
    assert not ValueOfDepth(rule(0.0, weights=ambiguity_weights(3))).reads_head
    assert not ValueOfDepth(rule(0.5, 1, weights=ambiguity_weights(3))).reads_head


def test_a_rule_of_before_there_were_risks_weighs_none():
    known = rule(0.5).to_dict()
    read = ValueRule.from_dict(known | {"weights": [row[:8] for row in known["weights"]]})
    assert read.weights == ((0.1,) * 8 + (0.0,) * 3,) * 2


@pytest.mark.parametrize("price", [0.0, 0.25, INFINITE])
def test_a_point_by_value_survives_json(price):
    point = OperatingPoint(name="balanced", value=rule(price))
    text = json.dumps(point.to_dict(), allow_nan=False)
    read = OperatingPoint.from_dict(json.loads(text))
    assert read == point
    assert isinstance(read.policy(), ValueOfDepth)
    assert find_point([read], "balanced", 3) is read
    assert read.rule == f"price {price:g}"


def test_a_point_of_thresholds_is_stored_as_it_always_was():
    point = OperatingPoint(name="fast", thresholds=(0.5, INFINITE), hysteresis=0.1)
    assert point.to_dict() == {"name": "fast", "thresholds": [0.5, "inf"], "hysteresis": 0.1}
    assert OperatingPoint.from_dict({"name": "old", "thresholds": [0.5]}).value is None
    assert point.rule == "0.5, inf"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": ((0.0,) * 3,) * 2}, "weights: must be 11 numbers"),
        ({"weights": ((0.0,) * FEATURES,)}, "for each of 2 exits"),
        ({"audit_every": 0}, "audit_every: must be at least 1"),
        ({"price": float("nan")}, "got NaN"),
    ],
)
def test_a_rule_that_does_not_fit_itself_is_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        ValueRule.from_dict(rule(0.5).to_dict() | changes)

import json
from collections import Counter

import pytest

from dytrack_model.errors import ConfigurationError
from dytrack_model.policy import (
    CycleExit,
    Hysteresis,
    OperatingPoint,
    RandomExit,
    Thresholds,
    check_point_name,
    find_point,
    shares_to_cycle,
)


def taken(policy, scores):
    """The exit at which a frame with these predicted IoUs leaves."""
    policy.begin_frame()
    for exit_index, score in enumerate(scores):
        if policy.leave(exit_index, score):
            return exit_index
    return len(scores)


@pytest.mark.parametrize(
    ("scores", "exit_index"), [((0.7, 0.1), 0), ((0.6, 0.8), 1), ((0.1, 0.1), 2)]
)
def test_a_frame_leaves_at_the_first_exit_whose_score_reaches_the_threshold(scores, exit_index):
    assert taken(Thresholds((0.7, 0.8)), scores) == exit_index


def test_thresholds_that_answer_everything_beforehand_read_no_score():
    assert not Thresholds((0.0, 0.0)).reads_score
    assert not Thresholds((float("inf"),)).reads_score
    assert Thresholds((float("inf"), 0.5)).reads_score


@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_negative_and_nan_thresholds_are_refused(value):
    with pytest.raises(ConfigurationError, match="must not be negative or NaN"):
        Thresholds((value,))


def test_random_exits_are_seeded_and_keep_their_shares():
    draws = [[taken(RandomExit((1, 1, 2), seed), (0, 0)) for _ in range(1)] for seed in (3, 3)]
    assert draws[0] == draws[1]
    policy = RandomExit((1, 1, 2), 0)
    counts = Counter(taken(policy, (0, 0)) for _ in range(4000))
    assert counts[2] / 4000 == pytest.approx(0.5, abs=0.03)


def test_a_cycle_repeats_and_holds_each_exits_share():
    cycle = shares_to_cycle((0.5, 0.25, 0.25), 20)
    assert Counter(cycle) == {0: 10, 1: 5, 2: 5}
    policy = CycleExit((0, 2, 1))
    assert [taken(policy, (0, 0)) for _ in range(6)] == [0, 2, 1, 0, 2, 1]


def test_hysteresis_holds_on_to_the_depth_of_the_frame_before():
    policy = OperatingPoint(name="p", thresholds=(0.5, 0.5), hysteresis=0.1).policy()
    policy.begin_target()
    scores = [0.55, 0.45, 0.35, 0.55, 0.65]
    # Leaves at once; stays there down to .4; goes deep; needs .6 to come back.
    assert [taken(policy, (score, 0.0)) for score in scores] == [0, 0, 2, 2, 0]
    policy.begin_target()
    assert taken(policy, (0.45, 0.0)) == 2


@pytest.mark.parametrize(("limit", "margin"), [(0.97, 0.05), (0.03, 0.05), (0.5, 0.9), (1.0, 0.3)])
def test_hysteresis_never_latches(limit, margin):
    policy = Hysteresis(Thresholds((limit,)), margin)
    policy.begin_target()
    for _ in range(3):
        # Whatever the depth of the frame before, a clear score changes it.
        assert taken(policy, (1.0,)) == 0
        assert taken(policy, (0.0,)) == 1


def test_hysteresis_leaves_zero_and_infinity_alone():
    assert taken(Hysteresis(Thresholds((0.0, 0.5)), 0.4), (0.0, 0.0)) == 0
    deep = Hysteresis(Thresholds((float("inf"), float("inf"))), 0.4)
    assert [taken(deep, (1.0, 1.0)) for _ in range(2)] == [2, 2]
    assert not deep.reads_score


@pytest.mark.parametrize("margin", [0.0, 1.0, -0.1])
def test_a_margin_outside_its_range_is_refused(margin):
    with pytest.raises(ConfigurationError, match="hysteresis: must lie between 0 and 1"):
        Hysteresis(Thresholds((0.5,)), margin)


def test_an_operating_point_survives_json():
    point = OperatingPoint(name="p", thresholds=(0.0, float("inf")), hysteresis=0.05)
    assert OperatingPoint.from_dict(json.loads(json.dumps(point.to_dict()))) == point


def test_every_target_meets_the_same_random_exits():
    policy = RandomExit((1, 1, 1), 5)
    runs = []
    for _ in range(2):
        policy.begin_target()
        runs.append([taken(policy, (0, 0)) for _ in range(20)])
    assert runs[0] == runs[1]


def test_a_point_that_says_nothing_of_hysteresis_has_none():
    assert OperatingPoint.from_dict({"name": "a", "thresholds": [0.5, 0.6]}).hysteresis == 0.0


def test_too_few_thresholds_are_told_with_how_many_there_must_be():
    with pytest.raises(ConfigurationError, match="takes 2 thresholds"):
        find_point((), "0.5", 3)


def test_full_is_full_depth_whatever_is_stored():
    stored = OperatingPoint(name="full", thresholds=(0.0, 0.0))
    assert find_point((stored,), "full", 3).thresholds == (float("inf"),) * 2
    with pytest.raises(ConfigurationError, match=r"must be a name, got 0\.5"):
        find_point((), 0.5, 3)


@pytest.mark.parametrize(
    "name", ["", " ", "a/b", "../a", ".a", "0.5", "0.5,0.6", "inf", "NaN", "full", "exit-6", "a "]
)
def test_a_point_is_not_named_like_something_else(name):
    with pytest.raises(ConfigurationError, match="name of an operating point"):
        check_point_name(name)


@pytest.mark.parametrize("name", ["a", "balanced", "eight ms", "näher_2.5", "x-1"])
def test_ordinary_names_are_taken(name):
    assert check_point_name(name) == name

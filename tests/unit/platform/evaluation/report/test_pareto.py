import numpy as np
import pytest

from dytrack_platform.evaluation.report.pareto import dominated, front, hypervolume

GOALS = ("max", "min")


def test_a_point_that_another_beats_is_dominated():
    values = np.array([[0.6, 1.0], [0.5, 2.0], [0.7, 3.0], [0.6, 1.0]])
    assert dominated(values, GOALS).tolist() == [False, True, False, False]


def test_a_point_with_nan_beats_none_and_counts_as_beaten():
    values = np.array([[np.nan, 0.1], [0.5, 2.0]])
    assert dominated(values, GOALS).tolist() == [True, False]


def test_the_front_is_ordered_by_cost():
    values = np.array([[0.9, 5.0], [0.5, 1.0], [0.7, 3.0], [0.6, 4.0]])
    assert front(values, GOALS).tolist() == [1, 2, 0]


def test_hypervolume_of_a_hand_drawn_staircase():
    values = np.array([[0.5, 1.0], [0.8, 2.0], [0.6, 3.0]])
    # Against (0, 4): 0.5 wide from cost 1 to 4, and 0.3 more from cost 2 to 4.
    assert hypervolume(values, GOALS, (0.0, 4.0)) == pytest.approx(0.5 * 3 + 0.3 * 2)


def test_hypervolume_equals_a_count_of_random_points():
    rng = np.random.default_rng(1)
    values = rng.uniform(0, 1, (12, 2))
    probes = rng.uniform(0, 1, (40_000, 2))
    covered = (
        (values[:, None, 0] >= probes[None, :, 0]) & (values[:, None, 1] <= probes[None, :, 1])
    ).any(axis=0)
    exact = hypervolume(values, GOALS, (0.0, 1.0))
    assert exact == pytest.approx(covered.mean(), abs=0.01)


def test_points_no_better_than_the_reference_add_nothing():
    assert hypervolume(np.array([[0.5, 9.0], [np.nan, 1.0]]), GOALS, (0.0, 4.0)) == 0.0


def test_hypervolume_of_three_goals_equals_a_count_of_random_points():
    rng = np.random.default_rng(2)
    values = rng.uniform(0, 1, (9, 3))
    probes = rng.uniform(0, 1, (60_000, 3))
    up = (values[:, None, 0] >= probes[None, :, 0]) & (values[:, None, 1] <= probes[None, :, 1])
    covered = (up & (values[:, None, 2] <= probes[None, :, 2])).any(axis=0)
    exact = hypervolume(values, ("max", "min", "min"), (0.0, 1.0, 1.0))
    assert exact == pytest.approx(covered.mean(), abs=0.01)


def test_hypervolume_does_not_depend_on_the_order_or_on_doubles():
    values = np.random.default_rng(3).uniform(0, 1, (12, 3))
    goals, reference = ("max", "min", "min"), (0.0, 1.0, 1.0)
    exact = hypervolume(values, goals, reference)
    assert hypervolume(values[::-1], goals, reference) == pytest.approx(exact)
    assert hypervolume(np.vstack([values, values]), goals, reference) == pytest.approx(exact)

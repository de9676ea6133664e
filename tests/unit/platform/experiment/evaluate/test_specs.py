"""What is evaluated beside a point: each exit over each region, and its own shares at random."""

import pytest
import torch

from dytrack_model.checkpoint import SavedTracker
from dytrack_model.config import variant
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import OperatingPoint
from dytrack_platform.errors import ConfigurationError
from dytrack_platform.experiment.evaluate.runtime_config import make_policy
from dytrack_platform.experiment.evaluate.specs import (
    baseline_specs,
    count_deciding,
    fixed_specs,
    matched_specs,
    point_specs,
)
from dytrack_platform.experiment.evaluate.versus import our_specs

WHOLE = ["exit-1", "exit-2", "exit-4"]
NARROW = [f"{name}-narrow" for name in WHOLE]
POINTS = (
    OperatingPoint(name="quick", thresholds=(0.5, 0.5), narrow=True),
    OperatingPoint(name="accurate", thresholds=(float("inf"),) * 2),
)


@pytest.fixture
def saved():
    with torch.device("meta"):
        return SavedTracker(network=DyTrackNetwork(variant("test", narrow_size=96)), points=POINTS)


def test_each_exit_is_a_baseline_over_each_region(saved):
    assert [spec.name for spec in fixed_specs(variant("test"))] == WHOLE
    found = baseline_specs(["fixed"], saved)
    assert [spec.name for spec in found] == WHOLE + NARROW
    assert [make_policy(spec, seed=0).narrow for spec in found] == [False] * 3 + [True] * 3


def test_a_points_baselines_look_where_it_looks(saved):
    points = point_specs(saved)
    assert [make_policy(spec, seed=0).narrow for spec in points] == [True, False]
    assert str(points[0]) != str(point_specs(saved, ["0.5,0.5"])[0]), "results are kept apart"
    matched = matched_specs({"quick": (0.5, 0.2, 0.3), "accurate": (0.0, 0.1, 0.9)}, points)
    assert {spec.name: make_policy(spec, seed=0).narrow for spec in matched} == {
        "random-quick": True,
        "cycle-quick": True,
        "random": False,
        "cycle": False,
    }


def test_points_that_can_take_several_exits_are_foreseen_to_have_baselines_of_their_cost(saved):
    assert count_deciding(point_specs(saved)) == 1, "accurate takes one"
    assert count_deciding(point_specs(saved, ["accurate"])) == 1, "where none does, one has"
    assert count_deciding(point_specs(saved, ["quick", "0.2,0.5", "full"])) == 2
    assert count_deciding([]) == 0


def test_versus_takes_exits_over_both_regions_and_leaves_out_the_narrow_ones_unasked(saved):
    assert [spec.name for spec in our_specs(saved)] == ["quick", "accurate", *WHOLE]
    assert our_specs(saved, ["exit-2-narrow"])[0].narrow
    with pytest.raises(ConfigurationError, match="exit-3-narrow: this tracker has no such exit"):
        our_specs(saved, ["exit-3-narrow"])

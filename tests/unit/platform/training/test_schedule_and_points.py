import math

import pytest
import torch

from dytrack_platform.config import TrainConfig
from dytrack_platform.training.optim import rate_factor
from dytrack_platform.training.validation import (
    exits_taken,
    operating_points,
    quantile_thresholds,
)


@pytest.mark.parametrize(
    ("schedule", "progress", "factor"),
    [
        ("step", 0.0, 1.0),
        ("step", 0.79, 1.0),
        ("step", 0.8, 0.1),
        ("cosine", 0.0, 1.0),
        ("cosine", 0.5, 0.5),
        ("cosine", 1.0, 0.0),
    ],
)
def test_the_schedule_follows_its_name(schedule, progress, factor):
    assert rate_factor(TrainConfig(schedule=schedule), progress) == pytest.approx(factor)


def test_warm_up_rises_to_the_whole_rate():
    config = TrainConfig(schedule="cosine", warmup=0.1)
    assert 0 < rate_factor(config, 0.0) < 0.1
    assert rate_factor(config, 0.05) == pytest.approx(0.5)
    assert rate_factor(config, 0.1) == pytest.approx(1.0)


def test_quantile_thresholds_give_each_exit_its_share():
    predicted = torch.rand(3, 10_000, generator=torch.Generator().manual_seed(0))
    thresholds = quantile_thresholds(predicted, (0.5, 0.3, 0.2))
    taken = exits_taken(predicted, thresholds)
    shares = torch.bincount(taken, minlength=3) / 10_000
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.01, rtol=0)


def test_a_pair_takes_the_first_exit_that_reaches_its_threshold():
    predicted = torch.tensor([[0.9, 0.1, 0.1], [0.9, 0.9, 0.1], [0.0, 0.0, 0.0]])
    assert exits_taken(predicted, (0.5, 0.5)).tolist() == [0, 1, 2]


def test_standard_points_run_from_fast_to_accurate():
    points = operating_points(torch.rand(3, 100))
    assert points[0].thresholds == (0.0, 0.0)
    assert points[-1].thresholds == (math.inf, math.inf)


def test_a_tracker_with_one_exit_has_one_point():
    assert [point.name for point in operating_points(torch.rand(1, 10))] == ["accurate"]

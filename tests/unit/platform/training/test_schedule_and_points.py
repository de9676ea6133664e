import math

import pytest
import torch

from dytrack_platform.config import TrainConfig
from dytrack_platform.training.optim import rate_factor
from dytrack_platform.training.validation import operating_points


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


def test_standard_points_run_from_fast_to_accurate():
    points = operating_points(torch.rand(3, 100))
    assert points[0].thresholds == (0.0, 0.0)
    assert points[-1].thresholds == (math.inf, math.inf)


def test_a_tracker_with_one_exit_has_one_point():
    assert [point.name for point in operating_points(torch.rand(1, 10))] == ["accurate"]

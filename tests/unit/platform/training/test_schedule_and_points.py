import math

import pytest
import torch

from dytrack_platform.config import TrainConfig
from dytrack_platform.training.optim import rate_factor
from dytrack_platform.training.validation import operating_points, summarise


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


def test_a_validation_says_how_well_each_exit_knows_its_iou():
    true = torch.tensor([[0.9, 0.8, 0.2, 0.1], [0.9, 0.9, 0.8, 0.7]])
    predicted = torch.tensor([[0.9, 0.8, 0.2, 0.1], [0.5, 0.5, 0.5, 0.5]])
    summary = summarise((1, 4), (predicted, true))
    assert summary["exit1/auroc"] == 1.0
    assert summary["exit1/iou_calibration"] == pytest.approx(0, abs=1e-6)
    assert summary["exit4/iou_calibration"] == pytest.approx(0.325)
    assert summary["exit4/iou"] == pytest.approx(0.825)
    # All of the deeper exit's boxes are good: there is nothing to rank.
    assert "exit4/auroc" not in summary

import math

import numpy as np
import pytest
import torch

from dytrack_model.ambiguity import Ambiguity
from dytrack_platform.config import TrainConfig
from dytrack_platform.training.closed_loop import Tracked
from dytrack_platform.training.optim import rate_factor
from dytrack_platform.training.points import Followed, operating_points
from dytrack_platform.training.validation import summarise


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


def track(seed, frames=150):
    """A track at full depth on which the first exit fails where it is ambiguous."""
    rng = np.random.default_rng(seed)
    unclear = rng.random(frames) < 0.2
    shown = 0.1 + 0.3 * rng.random((frames, 3, 3))
    shown[unclear, :2, 0] = 0.9
    iou = np.tile([0.6, 0.7, 0.8], (frames, 1))
    iou[unclear, 0] = 0.1
    iou[rng.random(frames) < 0.1] = np.nan  # no truth
    some = np.zeros((frames, 3))
    return Tracked(
        boxes_xywh=np.zeros((frames, 4)),
        exit_boxes_xywh=np.zeros((frames, 3, 4)),
        exits=np.full(frames, 2),
        iou=iou,
        predicted_iou=some + 0.5,
        peaks=some,
        shown=shown,
        summaries=np.zeros((frames, 3, 4)),
        shifts=np.zeros((frames, 2, 4)),
    )


def test_points_on_videos_go_deep_where_an_exit_is_ambiguous():
    gmacs = (1.0, 2.0, 4.0)
    followed = Followed(tracks=[track(0), track(1)], gmacs=gmacs, heads=(0.1, 0.1, 0.1))
    points = followed.points()
    assert [p.name for p in points] == ["fast", "quick", "balanced", "careful", "accurate"]
    assert [p.value is not None for p in points] == [False, True, True, True, False]
    prices = [p.value.price for p in points[1:4]]
    assert prices == sorted(prices, reverse=True)
    found = followed.metrics(points)
    cost = {p.name: found[f"val/point/{p.name}/gmacs"] for p in points}
    assert (cost["fast"], cost["accurate"]) == (1.0, 4.0)
    for name, share in (("quick", 0.2), ("balanced", 0.4), ("careful", 0.65)):
        assert cost[name] == pytest.approx(1.0 + 3.0 * share, abs=0.05)
    iou = [found[f"val/point/{p.name}/iou"] for p in points]
    assert iou == sorted(iou)
    # Exits at random of this cost would win back a fifth of what leaving at once loses.
    assert iou[1] - iou[0] > 0.3 * (iou[-1] - iou[0])


def test_prices_decide_along_a_track_as_the_policy_does():
    followed = Followed(tracks=[track(2)], gmacs=(1.0, 2.0, 4.0), heads=(0.1, 0.1, 0.1))
    (one,) = followed.tracks
    point = followed.points()[2]
    policy, taken = point.policy(), []
    policy.begin_target()
    for frame in range(len(one.exits)):
        policy.begin_frame()
        depth = next(
            (k for k in range(2) if policy.leave(k, 0.5, Ambiguity(*one.shown[frame, k]))), 2
        )
        taken.append(depth)
        if depth == 2:
            policy.full_depth([0.5] * 3, [1.0] * 2)
    assert set(taken) == {0, 1, 2}
    assert taken == followed._taken(one, point.value.price).tolist()


def test_a_tracker_with_one_exit_that_was_followed_has_one_point():
    followed = Followed(tracks=[], gmacs=(1.0,), heads=(0.1,))
    assert [point.name for point in followed.points()] == ["accurate"]


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

"""Boxes, crops, policies and thresholds: what holds for every input that can occur."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dytrack_model.boxes import cxcywh_to_xyxy, iou_and_giou
from dytrack_model.crops import box_from_crop, box_to_crop, clip_box, crop, crop_side
from dytrack_model.policy import Hysteresis, Thresholds, shares_to_cycle
from dytrack_model.thresholds import exits_taken, quantile_thresholds, risk_bound

place = st.floats(-2000, 2000)
size = st.floats(1, 1500)
boxes = st.tuples(place, place, size, size)
unit = st.floats(0, 1)
scores = arrays.arrays(np.float64, st.tuples(st.integers(1, 20), st.just(3)), elements=unit)
limits = st.tuples(unit, unit)


def corners(box):
    return torch.tensor([[box[0], box[1], box[0] + box[2], box[1] + box[3]]], dtype=torch.float64)


@given(boxes, boxes)
def test_iou_is_symmetric_bounded_and_above_giou(one, other):
    iou, giou = iou_and_giou(corners(one), corners(other))
    back, _ = iou_and_giou(corners(other), corners(one))
    assert torch.isclose(iou, back)
    assert 0 <= iou <= 1
    assert -1 <= giou <= iou + 1e-9


@given(boxes, st.floats(-500, 500), st.floats(-500, 500))
def test_iou_knows_itself_and_no_place(box, dx, dy):
    moved = (box[0] + dx, box[1] + dy, box[2], box[3])
    iou, giou = iou_and_giou(corners(moved), corners(moved))
    assert torch.allclose(iou, torch.ones(1, dtype=torch.float64))
    assert torch.allclose(giou, torch.ones(1, dtype=torch.float64))


@given(boxes)
def test_centre_form_becomes_the_same_corners(box):
    x, y, w, h = box
    found = cxcywh_to_xyxy(torch.tensor([[x + w / 2, y + h / 2, w, h]], dtype=torch.float64))
    assert torch.allclose(found, corners(box), atol=1e-6)


@given(boxes, place, place, st.floats(4, 4000))
def test_a_box_survives_the_way_into_a_crop_and_back(box, cx, cy, side):
    back = box_from_crop(box_to_crop(box, (cx, cy), side), (cx, cy), side)
    np.testing.assert_allclose(back, box, rtol=1e-9, atol=1e-6)


@given(boxes, st.floats(1, 6))
def test_a_crop_holds_its_targets_area_times_the_factor(box, factor):
    side = crop_side(box, factor)
    assert side == int(side)
    assert 0 <= side - factor * (box[2] * box[3]) ** 0.5 < 1 + 1e-9


@given(boxes, st.integers(1, 4000), st.integers(1, 4000))
def test_a_clipped_box_stays_in_the_image_with_an_area(box, width, height):
    x, y, w, h = clip_box(np.array(box), width, height)
    assert w > 0
    assert h > 0
    assert x >= 0
    assert y >= 0
    assert x + w <= width + 1e-9
    assert y + h <= height + 1e-9


@settings(max_examples=30)
@given(place, place, st.floats(1, 3000), st.sampled_from([16, 64]))
def test_a_crop_of_one_colour_has_it_or_black(cx, cy, side, pixels):
    image = np.full((40, 60, 3), 200, np.uint8)
    found = crop(image, (cx, cy), side, pixels)
    assert found.shape == (pixels, pixels, 3)
    assert found.max() <= 200
    inside = cx - side / 2 > 0 and cx + side / 2 < 60 and cy - side / 2 > 0 and cy + side / 2 < 40
    if inside:
        assert found.min() >= 199


@given(scores, limits)
def test_the_vectorised_exits_are_those_of_the_policy(predicted, thresholds):
    policy = Thresholds(thresholds)
    for row, taken in zip(predicted, exits_taken(predicted, thresholds), strict=True):
        asked = next((k for k in range(2) if policy.leave(k, row[k])), 2)
        assert asked == taken


@given(scores, limits, unit)
def test_a_higher_threshold_never_leaves_earlier(predicted, thresholds, more):
    higher = tuple(min(1.0, value + more) for value in thresholds)
    assert (exits_taken(predicted, higher) >= exits_taken(predicted, thresholds)).all()


@given(limits, st.floats(0.01, 0.99), st.lists(unit, min_size=1, max_size=12))
def test_hysteresis_never_makes_an_exit_unreachable(thresholds, margin, seen):
    policy = Hysteresis(Thresholds(thresholds), margin)
    for score in seen:
        policy.begin_frame()
        next((k for k in range(2) if policy.leave(k, score)), None)
    policy.begin_frame()
    assert policy.leave(0, 1.0) or thresholds[0] > 1
    if thresholds[0] > 0:
        policy.begin_frame()
        assert not policy.leave(0, 0.0) or thresholds[0] <= 1e-300


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any), st.integers(1, 60))
def test_a_cycle_keeps_the_shares_to_one_frame(shares, length):
    cycle = shares_to_cycle(shares, length)
    assert len(cycle) == length
    for index, share in enumerate(shares):
        assert abs(cycle.count(index) - share / sum(shares) * length) <= len(shares)
        if share == 0:
            assert index not in cycle


@given(scores, st.integers(0, 5), st.integers(0, 5), st.integers(1, 5))
def test_quantile_thresholds_are_usable(predicted, first, second, last):
    total = first + second + last
    found = quantile_thresholds(predicted, (first / total, second / total, last / total))
    assert len(found) == 2
    assert all(value >= 0 for value in found)
    Thresholds(found)


@given(arrays.arrays(np.float64, st.integers(1, 40), elements=unit), st.floats(0.01, 0.5))
def test_a_bound_of_the_risk_lies_above_the_mean_and_tightens_with_doubt(losses, delta):
    bound = risk_bound(losses, delta)
    assert losses.mean() - 1e-9 <= bound <= 1 + 1e-9
    assert risk_bound(losses, delta / 2) >= bound - 1e-9

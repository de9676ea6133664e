import numpy as np
import pytest

from dytrack_platform.evaluation.scoring.metrics import (
    ThresholdCounter,
    centre_errors,
    centres,
    columns,
    normalised_errors,
    overlaps,
    speed,
    trapezoid_area,
)
from dytrack_platform.evaluation.scoring.profiles import PROFILES


def slow_overlap(a, b):
    width = max(0.0, min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]))
    union = a[2] * a[3] + b[2] * b[3] - width * height
    return width * height / union


@pytest.fixture
def boxes():
    rng = np.random.default_rng(5)
    a = np.column_stack([rng.uniform(0, 200, (500, 2)), rng.uniform(1, 80, (500, 2))])
    return a, a + rng.normal(0, 12, a.shape).clip(-0.9, 30)


@pytest.mark.parametrize("edges", ["inclusive", "plain", "guarded"])
def test_overlaps_equal_a_slow_reference(boxes, edges):
    a, b = boxes
    expected = [slow_overlap(x, y) for x, y in zip(a, b, strict=True)]
    assert np.allclose(overlaps(columns(a), columns(b), edges), expected, rtol=0, atol=1e-12)


def test_overlaps_of_hand_drawn_boxes():
    same, half, apart = [10, 10, 20, 20], [10, 10, 20, 10], [200, 100, 10, 10]
    truth = np.array([same] * 3, dtype=float)
    found = overlaps(columns(np.array([same, half, apart], dtype=float)), columns(truth))
    assert found.tolist() == [1.0, 0.5, 0.0]


def test_several_results_against_one_annotation_equal_one_at_a_time(boxes):
    a, b = boxes
    stacked = overlaps(columns(np.stack([a, b])), columns(b))
    assert np.array_equal(stacked[0], overlaps(columns(a), columns(b)))
    assert stacked.shape == (2, 500)


def test_centre_errors_are_distances(boxes):
    a, b = boxes
    found = centre_errors(columns(a), columns(b))
    expected = np.hypot(*((a[:, :2] + a[:, 2:] / 2) - (b[:, :2] + b[:, 2:] / 2)).T)
    assert np.allclose(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("scale", ["quotients", "guarded-quotients", "quotient-of-difference"])
def test_normalised_errors_are_distances_in_target_sizes(boxes, scale):
    a, b = (columns(x) for x in boxes)
    found = normalised_errors(a, b, scale)
    dx = (centres(a).x - centres(b).x) / b.w
    dy = (centres(a).y - centres(b).y) / b.h
    assert np.allclose(found, np.hypot(dx, dy), rtol=0, atol=1e-12)


@pytest.mark.parametrize("place", range(8))
@pytest.mark.parametrize("edges", ["inclusive", "plain", "guarded"])
def test_a_number_that_is_missing_leaves_no_overlap_and_no_distance(place, edges):
    boxes = np.array([[10.0, 10, 20, 20], [12.0, 11, 20, 20]])
    boxes.flat[place] = np.nan
    a, b = columns(boxes[:1]), columns(boxes[1:])
    assert np.isnan(overlaps(a, b, edges)).all()
    assert np.isnan(centre_errors(a, b)).all()
    for scale in ("quotients", "guarded-quotients", "difference", "quotient-of-difference"):
        assert np.isnan(normalised_errors(a, b, scale)).all()


def test_boxes_without_area_follow_the_toolkits():
    nothing = columns(np.array([[5.0, 5, 0, 0]]))
    assert np.isnan(overlaps(nothing, nothing, "plain")).all()
    assert overlaps(nothing, nothing, "guarded").tolist() == [0.0]
    assert normalised_errors(nothing, nothing, "difference").tolist() == [0.0]
    assert np.isnan(normalised_errors(nothing, nothing, "quotients")).all()


def test_inputs_are_not_changed(boxes):
    a, b = boxes
    before = a.copy(), b.copy()
    first, second = columns(a), columns(b)
    overlaps(first, second)
    centre_errors(first, second)
    normalised_errors(first, second, "quotients")
    assert np.array_equal(a, before[0])
    assert np.array_equal(b, before[1])
    assert np.array_equal(first.w, before[0][:, 2])


def tied(thresholds, seed=0):
    """Values on, just below and just above every threshold, among others and unknown ones."""
    rng = np.random.default_rng(seed)
    above, below = np.nextafter(thresholds, np.inf), np.nextafter(thresholds, -np.inf)
    others = [-1.0, np.nan, np.inf, -np.inf, 1e300, 0.0, -0.0]
    spread = rng.uniform(0, thresholds[-1] * 1.2, 200)
    close = thresholds + rng.normal(0, 1e-9, len(thresholds)) * thresholds[1]
    values = np.concatenate([thresholds, above, below, others, spread, close])
    return np.stack([rng.permutation(values) for _ in range(3)])


@pytest.mark.parametrize("or_equal", [False, True])
@pytest.mark.parametrize("name", list(PROFILES))
def test_a_counter_counts_like_a_loop_over_thresholds(name, or_equal):
    rules = PROFILES[name]
    uneven = np.array([-1.0, 0.0, 0.1, 0.3, 5.0])
    for thresholds in (
        rules.overlap_thresholds,
        rules.pixel_thresholds,
        rules.scaled_thresholds,
        uneven,
    ):
        values = tied(thresholds)
        counter = ThresholdCounter(thresholds, or_equal=or_equal)
        for k, threshold in enumerate(thresholds):
            exceeds = values >= threshold if or_equal else values > threshold
            below = ~exceeds & ~np.isnan(values)
            assert counter.above(values)[:, k].tolist() == exceeds.sum(axis=1).tolist()
            assert counter.within(values)[:, k].tolist() == below.sum(axis=1).tolist()


def test_a_counter_refuses_thresholds_that_do_not_rise():
    for thresholds in ([0.0, 0.2, 0.1], [0.1, 0.1, 0.3], [0.0, np.nan, 1.0]):
        with pytest.raises(ValueError, match="thresholds that rise"):
            ThresholdCounter(np.array(thresholds))


def test_trapezoid_area_of_a_ramp_is_one_half():
    thresholds = np.linspace(0, 50, 21)
    assert trapezoid_area(thresholds / 50, thresholds) == pytest.approx(0.5)


def test_speed_says_both_averages_and_leaves_out_times_of_zero():
    found = speed(np.array([0.0, 0.1, 0.2]))
    assert found.mean_of_reciprocals == pytest.approx(7.5)
    assert found.frames_over_time == pytest.approx(10.0)
    assert np.isnan(speed(np.zeros(3)).frames_over_time)


def test_only_sides_below_a_pixel_count_as_one():
    """By got10k master's rule: a side of 1.5 pixels divides by 1.5, one of a half by 1."""
    truth = columns(np.array([[10.0, 10.0, 1.5, 0.5]]))
    found = columns(np.array([[13.0, 10.0, 1.5, 0.5], [10.0, 13.0, 1.5, 0.5]]))
    np.testing.assert_allclose(normalised_errors(found, truth, "difference"), [2.0, 3.0])

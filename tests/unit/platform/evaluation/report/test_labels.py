"""Names of points keep apart, and axes show what there is."""

import itertools
import random

import pytest

from dytrack_platform.evaluation.report import labels
from dytrack_platform.evaluation.report.labels import Range, place, sensible_range


def _boxes(points, names, ranges, size, chosen):
    boxes = []
    for (x, y), name, where in zip(points, names, chosen, strict=True):
        px = (x - ranges[0].low) / (ranges[0].high - ranges[0].low) * size[0]
        py = (y - ranges[1].low) / (ranges[1].high - ranges[1].low) * size[1]
        if where is not None:
            boxes.append(labels._box(px, py, where, len(name)))
    return boxes


@pytest.mark.parametrize("seed", range(5))
def test_no_two_names_overlap(seed):
    rng = random.Random(seed)
    points = [(rng.uniform(1, 2), rng.uniform(0.6, 0.62)) for _ in range(14)]
    names = [f"point-{k}" for k in range(14)]
    ranges = (Range(0, 2.2), Range(0.59, 0.63))
    chosen = place(points, names, ranges)
    boxes = _boxes(points, names, ranges, (620, 340), chosen)
    assert len(boxes) > 8
    assert not any(labels._overlap(a, b) for a, b in itertools.combinations(boxes, 2))
    for left, low, right, high in boxes:
        assert left >= 0
        assert right <= 620
        assert low >= 0
        assert high <= 340


def test_points_in_one_place_show_as_many_names_as_fit():
    chosen = place([(1.0, 1.0)] * 12, ["name"] * 12, (Range(0, 2), Range(0, 2)))
    assert chosen[0] == "top center"
    assert chosen[-1] is None
    assert len({where for where in chosen if where}) == sum(where is not None for where in chosen)


def test_an_axis_starts_at_zero_unless_all_would_lie_in_a_corner():
    assert sensible_range([1.0, 4.0], from_zero=True).low == 0
    far = sensible_range([9.0, 10.0], from_zero=True)
    assert 8.5 < far.low < 9 < 10 < far.high < 10.5
    near = sensible_range([0.61, 0.65], from_zero=False)
    assert near.low > 0.6
    assert sensible_range([], from_zero=True) == Range(0.0, 1.0)
    assert sensible_range([0.0, 0.0], from_zero=True).high > 0

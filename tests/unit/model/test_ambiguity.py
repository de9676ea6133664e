import math

import numpy as np
import pytest

from dytrack_model.ambiguity import CLEAR, Ambiguity, distraction, motion
from dytrack_model.exits.heads import hann_window

BOX = [0.45, 0.45, 0.2, 0.2]  # around the cell in row 5, column 5 of twelve


def scores(*peaks):
    score = np.full((1, 12, 12), 0.01)
    for row, column, value in peaks:
        score[0, row, column] = value
    return score


@pytest.mark.parametrize(
    ("peaks", "expected"),
    [
        ([(5, 5, 0.8)], 0.0125),  # nothing else but the ground
        ([(5, 5, 0.8), (2, 9, 0.4)], 0.5),  # something alike in a corner
        ([(5, 5, 0.8), (6, 5, 0.7), (4, 4, 0.7)], 0.0125),  # a broad peak is one thing
        ([(5, 5, 0.8), (5, 8, 0.8)], 1.0),
    ],
)
def test_a_distractor_is_what_else_is_high(peaks, expected):
    assert distraction(scores(*peaks), [BOX]).item() == pytest.approx(expected)


def test_a_large_box_holds_its_own_parts():
    two = scores((5, 5, 0.8), (5, 8, 0.6))
    assert distraction(two, [[0.45, 0.45, 0.2, 0.2]]).item() == pytest.approx(0.75)
    assert distraction(two, [[0.45, 0.45, 0.7, 0.2]]).item() == pytest.approx(0.0125)


def test_it_is_weighed_as_the_box_was_read():
    window = hann_window(12, 1.0).numpy()
    far = scores((5, 5, 0.6), (0, 0, 0.9))  # higher, but where nothing is looked for
    expected = max(0.9 * window[0, 0], 0.01 * window[5, 7]) / (0.6 * window[5, 5])
    assert distraction(far * window, [BOX]).item() == pytest.approx(expected)
    assert expected < 0.1


def test_crops_of_a_batch_are_judged_by_themselves():
    both = np.concatenate([scores((5, 5, 0.8), (2, 9, 0.4)), scores((5, 5, 0.8))])
    assert distraction(both, [BOX, BOX]).tolist() == pytest.approx([0.5, 0.0125])


@pytest.mark.parametrize("factor", [2.0, 4.0])
def test_motion_is_in_units_of_the_target(factor):
    side = 1 / factor
    assert motion((0.5, 0.5, side, side), factor) == pytest.approx((0, 0))
    moved, grown = motion((0.5 + 0.3 * side, 0.5 - 0.4 * side, side, side), factor)
    assert (moved, grown) == pytest.approx((0.5, 0))
    for share in (1.5, 1 / 1.5):
        assert motion((0.5, 0.5, share * side, side), factor)[1] == pytest.approx(math.log(1.5))
    assert motion((0.9, 0.9, 1e-9, 1e-9), factor).tolist() == [1, 1]
    boxes = np.full((3, 2, 4), side)
    boxes[..., :2] = 0.5
    boxes[1, 1, 0] += 0.5 * side
    several = motion(boxes, factor)
    assert several.shape == (3, 2, 2)
    assert several[1, 1] == pytest.approx((0.5, 0))
    assert several.sum() == pytest.approx(0.5)


def test_no_risk_is_none():
    assert Ambiguity(distractor=0, displacement=0, scale_change=0) == CLEAR

import numpy as np
import pytest

from dytrack_model.correction import BoxCorrection, agreement

SHALLOW = np.array([100.0, 50.0, 40.0, 20.0])
SIDES = np.array([40.0, 20.0, 40.0, 20.0])


def frame(own, deep):
    """One target's boxes (E, 1, 4) at two exits."""
    return np.stack([own, deep])[:, None]


@pytest.mark.parametrize("bias", [(2, -1, 0, 0), (-4, -2, 8, 4), (0, 0, -10, 5)])
def test_a_constant_bias_is_learned_wherever_and_however_large_the_target_is(bias):
    correction = BoxCorrection(2)
    rng = np.random.default_rng(0)
    for _ in range(12):
        own = SHALLOW * rng.uniform(0.5, 2) + np.array([*rng.uniform(-50, 50, 2), 0, 0])
        scale = own[2] / SHALLOW[2]
        correction.learn(frame(own, own + scale * np.array(bias)))
    elsewhere = np.array([7.0, 9.0, 80.0, 40.0])
    found = correction.apply(elsewhere[None, None])[0, 0]
    np.testing.assert_allclose(found, elsewhere + 2 * np.array(bias), atol=0.05)


def test_the_deepest_exits_box_is_never_corrected():
    correction = BoxCorrection(2)
    correction.learn(frame(SHALLOW, SHALLOW + 2))
    deep = SHALLOW + 30
    np.testing.assert_array_equal(correction.apply(frame(SHALLOW, deep))[1, 0], deep)


def test_a_deep_box_on_another_object_teaches_nothing():
    correction = BoxCorrection(2)
    correction.learn(frame(SHALLOW, SHALLOW + np.array([2, 0, 0, 0])))
    before = correction.shifts.copy()
    for away in ([40, 0, 0, 0], [0, -30, 0, 0], [0, 0, 60, 30]):
        correction.learn(frame(SHALLOW, SHALLOW + np.array(away)))
    np.testing.assert_array_equal(correction.shifts, before)
    assert before.any()


def test_only_targets_that_ran_to_full_depth_learn():
    correction = BoxCorrection(2, 2)
    boxes = np.stack([np.stack([SHALLOW] * 2), np.stack([SHALLOW + 2] * 2)])
    correction.learn(boxes, np.array([True, False]))
    assert correction.shifts[:, 0].any()
    assert not correction.shifts[:, 1].any()


def test_chance_stays_small_whatever_it_meets():
    """However boxes differ, a correction stays within what is believed at all."""
    correction = BoxCorrection(3)
    rng = np.random.default_rng(1)
    for _ in range(500):
        boxes = SHALLOW + rng.normal(0, 30, (3, 1, 4))
        boxes[..., 2:] = np.abs(boxes[..., 2:]) + 1e-9
        correction.learn(boxes)
        assert np.abs(correction.shifts).max() <= 0.7
        assert (correction.apply(boxes)[..., 2:] > 0).all()


def test_agreement_is_the_overlap_with_the_deepest_box():
    half = SHALLOW + np.array([20, 0, 0, 0])
    assert agreement(frame(half, SHALLOW))[0, 0] == pytest.approx(1 / 3)
    assert agreement(frame(SHALLOW + 500, SHALLOW))[0, 0] == 0

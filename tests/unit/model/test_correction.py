import numpy as np

from dytrack_model.correction import BoxCorrection, agreement

DEEP = [100.0, 80.0, 40.0, 30.0]


def boxes(*rows):
    """Return (E, 1, 4) boxes of one target."""
    return np.array(rows, np.float64)[:, None]


def test_a_constant_bias_is_learned_in_a_few_deep_frames():
    biased = boxes([104, 82, 36, 27], [101, 80, 40, 30], DEEP)
    correction = BoxCorrection(3)
    before = agreement(correction.apply(biased))
    for _ in range(8):
        correction.learn(biased)
    after = agreement(correction.apply(biased))
    assert (after > before).all()
    assert (after > 0.99).all()


def test_half_of_the_first_difference_is_believed():
    correction = BoxCorrection(2)
    correction.learn(boxes([110, 80, 40, 30], DEEP))
    assert np.allclose(correction.shifts[0, 0], [-0.125, 0, 0, 0])
    assert np.allclose(correction.apply(boxes([110, 80, 40, 30], DEEP))[0, 0], [105, 80, 40, 30])


def test_the_deepest_box_stays_as_it_is():
    correction = BoxCorrection(2)
    correction.learn(boxes([110, 80, 40, 30], DEEP))
    assert np.array_equal(correction.apply(boxes([0, 0, 9, 9], DEEP))[-1, 0], DEEP)


def test_a_deep_box_on_another_object_teaches_nothing():
    correction = BoxCorrection(2)
    correction.learn(boxes([300, 80, 40, 30], DEEP))
    correction.learn(boxes([100, 80, 10, 10], DEEP))
    assert not correction.shifts.any()


def test_targets_that_left_early_teach_nothing():
    correction = BoxCorrection(2, targets=2)
    pair = np.repeat(boxes([110, 80, 40, 30], DEEP), 2, axis=1)
    correction.learn(pair, np.array([False, True]))
    assert not correction.shifts[:, 0].any()
    assert correction.shifts[:, 1].any()


def test_agreement_is_the_overlap_with_the_deepest_box():
    found = agreement(boxes(DEEP, [140, 80, 40, 30], [100, 80, 20, 30], DEEP))
    assert np.allclose(found[:, 0], [1, 0, 0.5])

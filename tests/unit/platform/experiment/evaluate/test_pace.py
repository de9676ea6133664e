"""The time left of an evaluation is honest from the first sequence on."""

import pytest

from dytrack_platform.experiment.evaluate.pace import Pace


def test_nothing_is_said_before_a_sequence_is_finished():
    pace = Pace(workers=2)
    pace.expect("full", 100)
    assert (pace.frames_per_second, pace.seconds_left) == (0, None)


def test_each_tracker_is_timed_by_its_own_frames():
    pace = Pace(workers=2)
    for tracker in ("full", "static", "fast"):
        pace.expect(tracker, 1000)
    pace.finish("full", 100, 4.0)
    assert pace.frames_per_second == pytest.approx(2 * 100 / 4.0)
    assert pace.seconds_left == pytest.approx(2900 * 0.04 / 2), "by all, while that is all there is"
    pace.finish("static", 100, 0.0)
    # fast is timed by the mean of the other two still
    assert pace.seconds_left == pytest.approx((900 * 0.04 + 900 * 0.0 + 1000 * 0.02) / 2)
    pace.finish("fast", 1000, 10.0)
    pace.drop("static", 900)
    assert pace.seconds_left == pytest.approx(900 * 0.04 / 2)
    pace.finish("full", 900, 36.0)
    assert pace.seconds_left == 0


def test_frames_that_follow_from_the_others_are_in_the_time_left():
    pace = Pace(workers=1)
    pace.expect("balanced", 200)
    pace.expect_later(400)
    pace.finish("balanced", 100, 1.0)
    assert pace.seconds_left == pytest.approx(5.0)
    pace.expect_later(0)
    pace.expect("random", 200)
    assert pace.seconds_left == pytest.approx(3.0)


def test_a_tracker_that_takes_no_time_leaves_none():
    pace = Pace(workers=1)
    pace.expect("static", 20)
    pace.finish("static", 10, 0.0)
    assert pace.frames_per_second == 0
    assert pace.seconds_left is None

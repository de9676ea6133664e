"""The side-by-side video: what each tracker said of the same frame."""

import numpy as np
import pytest

from dytrack_pipelines.media import panels

NAN = float("nan")


def track(name="ours", box=(20.0, 10.0, 30.0, 20.0), frames=3, lost=0.0):
    return panels.Track(
        name=name, boxes_xywh=np.tile(np.array(box), (frames, 1)), lost=np.full(frames, lost)
    )


@pytest.fixture
def frame():
    return np.full((90, 240, 3), 100, np.uint8)


@pytest.mark.parametrize(
    ("count", "across"), [(1, 1), (2, 2), (3, 3), (4, 2), (5, 3), (6, 3), (9, 3), (10, 4)]
)
def test_panels_fill_rows(count, across, frame):
    assert panels.columns(count) == across
    drawn = panels.draw(frame, [track(str(k)) for k in range(count)], 1)
    rows = -(-count // across)
    assert drawn.shape == (rows * (90 + panels.HEAD), across * 240, 3)


@pytest.mark.parametrize(("width", "height"), [(3840, 2160), (1280, 719), (64, 49), (333, 111)])
def test_every_picture_is_even_no_wider_than_a_screen_and_no_panel_too_narrow(width, height):
    drawn = panels.draw(
        np.zeros((height, width, 3), np.uint8), [track(str(k)) for k in range(6)], 0
    )
    assert drawn.shape[0] % 2 == drawn.shape[1] % 2 == 0
    assert 3 * 240 <= drawn.shape[1] <= 1920 + 3


def coloured(panel, ink):
    return (np.abs(panel.astype(int) - ink).max(axis=-1) < 3).sum()


def test_each_panel_has_its_trackers_box_in_its_colour_and_nobody_elses(frame):
    one, other = track("one"), track("other", box=(150.0, 40.0, 40.0, 30.0))
    drawn = panels.draw(frame, [one, other], 1)[panels.HEAD :]
    left, right = drawn[:, :240], drawn[:, 240:]
    assert left[10, 20].tolist() == list(panels.colour(0))
    assert right[40, 150].tolist() == list(panels.colour(1))
    assert coloured(left, panels.colour(1)) == coloured(right, panels.colour(0)) == 0
    assert frame.min() == frame.max() == 100, "the frame itself is left as it is"


def test_a_lost_target_is_grey_and_a_tracker_that_gave_up_has_no_box(frame):
    lost, gone = track(lost=1.0), track()
    gone.boxes_xywh[1:] = NAN
    drawn = panels.draw(frame, [lost, gone], 1)[panels.HEAD :]
    assert coloured(drawn, panels.colour(0)) == 0
    assert coloured(drawn[:, :240], (150, 150, 150)) > 50
    assert (drawn[:, 240:] == 100).all()
    assert [one.remark(1) for one in (lost, gone, track(lost=NAN))] == ["lost", "gave up", ""]
    assert gone.remark(0) == ""


def test_truth_is_drawn_where_it_is_known(frame):
    truth = np.array([100.0, 20.0, 50.0, 40.0])
    drawn = panels.draw(frame, [track()], 1, truth)[panels.HEAD :]
    assert drawn[20, 100].tolist() == [255, 255, 255]


def test_a_box_that_ran_away_leaves_the_picture_and_does_not_come_back(frame):
    drawn = panels.draw(frame, [track(box=(1e9, -1e9, 50.0, 50.0))], 0)[panels.HEAD :]
    assert (drawn == 100).all()


def test_a_frame_that_does_not_decode_repeats_the_one_before(frame):
    shown = list(panels.film([frame, None, frame], [track()], np.full((3, 4), NAN)))
    assert len(shown) == 3
    np.testing.assert_array_equal(shown[0], shown[1])

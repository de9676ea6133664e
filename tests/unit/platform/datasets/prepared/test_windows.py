import cv2
import numpy as np
import pytest

from dytrack_model.crops import box_to_crop, centre, crop, crop_side
from dytrack_platform.datasets.io.frames import decode
from dytrack_platform.datasets.prepared.windows import ClipConfig, cut_window
from dytrack_platform.errors import ConfigurationError, DataError

CONFIG = ClipConfig(search_size=128, quality=98)


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    return cv2.GaussianBlur(rng.integers(0, 255, (480, 640, 3), np.uint8), (0, 0), 5)


@pytest.mark.parametrize(
    "box", [(300, 200, 40, 30), (5, 3, 90, 20), (600, 440, 38, 38), (300, 200, 7.5, 9.25)]
)
def test_a_crop_of_a_window_is_the_crop_of_its_frame(frame, box):
    box = np.array(box, float)
    window = cut_window(frame, box, CONFIG)
    inside = np.array(window.box_xywh)
    side = crop_side(box, 4.0)
    wanted = crop(frame, centre(box), side, 128)
    found = crop(decode(window.jpeg, "w"), centre(inside), side * window.scale, 128)
    assert np.abs(wanted.astype(int) - found).mean() < 2.0
    np.testing.assert_allclose(
        box_to_crop(inside, centre(inside), side * window.scale),
        box_to_crop(box, centre(box), side),
    )


def test_a_window_holds_every_jittered_crop(frame):
    box = np.array([310.0, 230.0, 20.0, 20.0])
    window = cut_window(frame, box, CONFIG)
    pixels, inside = decode(window.jpeg, "w"), np.array(window.box_xywh)
    x, y = centre(inside)
    reach = 20 * (1.5 + 2 * np.exp(0.5))
    assert x - reach >= 0
    assert y - reach >= 0
    assert x + reach <= pixels.shape[1]
    assert y + reach <= pixels.shape[0]


def test_a_large_target_is_made_smaller_and_a_small_one_is_not_enlarged(frame):
    large = cut_window(frame, np.array([100.0, 100.0, 256.0, 256.0]), CONFIG)
    small = cut_window(frame, np.array([100.0, 100.0, 8.0, 8.0]), CONFIG)
    assert large.scale == 128 / 1024
    assert decode(large.jpeg, "w").shape == (60, 80, 3)
    assert small.scale == 1.0
    assert max(decode(small.jpeg, "w").shape) < 80


def test_a_box_partly_outside_gives_a_window_and_one_far_outside_is_refused(frame):
    window = cut_window(frame, np.array([-30.0, -10.0, 40.0, 30.0]), CONFIG)
    assert window.box_xywh[0] == -30.0 * window.scale
    with pytest.raises(DataError, match="the box 5000,10,4,4 lies outside of its image of 640x480"):
        cut_window(frame, np.array([5000.0, 10.0, 4.0, 4.0]), CONFIG)


def test_a_box_of_a_fraction_of_a_pixel_gives_a_window(frame):
    assert decode(cut_window(frame, np.array([10, 10, 0.05, 0.05]), CONFIG).jpeg, "w").size > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 0}, "frames: must be at least 1, got 0"),
        ({"frames": 20, "span": 10}, r"span: must be at least frames \(20\), got 10"),
        ({"quality": 101}, r"quality: must lie in \[1, 100\], got 101"),
        ({"search_factor": 0.5}, "search_factor: must be at least 1, got 0.5"),
        ({"smallest_side": -1}, "smallest_side: must not be negative, got -1"),
    ],
)
def test_a_wrong_value_is_refused_by_name(change, message):
    with pytest.raises(ConfigurationError, match=message):
        ClipConfig(**change)

import numpy as np
import pytest

from dytrack_platform.config import DataConfig
from dytrack_platform.datasets.loading.pairs import choose_frames, jitter
from dytrack_platform.datasets.prepared.shards import StoredClip


def a_clip(frames, visible=None):
    count = len(frames)
    return StoredClip(
        dataset="made",
        sequence="a",
        frames=np.array(frames),
        jpegs=[b""] * count,
        boxes_xywh=np.tile([1.0, 2.0, 3.0, 4.0], (count, 1)),
        visible=np.ones(count, bool) if visible is None else np.array(visible),
        scales=np.ones(count),
    )


def choices(clip, max_gap=200, draws=300):
    rng = np.random.default_rng(0)
    return {choose_frames(clip, max_gap, rng) for _ in range(draws)}


def test_the_search_frame_comes_later_and_within_the_gap():
    assert choices(a_clip([0, 10, 25, 100]), max_gap=20) == {(0, 1), (1, 2)}


def test_absent_frames_are_never_chosen():
    assert choices(a_clip([0, 1, 2, 3], [True, False, True, False])) == {(0, 2)}


def test_a_clip_without_a_couple_pairs_frames_with_themselves():
    assert choices(a_clip([0, 500], [True, True]), max_gap=20) == {(0, 0), (1, 1)}
    assert choices(a_clip([0, 1], [False, True])) == {(1, 1)}


def test_frames_whose_box_has_no_area_are_never_chosen():
    clip = a_clip([0, 1, 2])
    clip.boxes_xywh[1, 2] = 0
    assert choices(clip) == {(0, 2)}


@pytest.mark.parametrize("box", [(50.0, 40.0, 30.0, 20.0), (-20.0, -10.0, 30.0, 20.0)])
def test_jitter_stays_in_the_window_and_keeps_the_target(box):
    box = np.array(box)
    root, rng = float(np.sqrt(box[2] * box[3])), np.random.default_rng(0)
    x, y = box[0] + box[2] / 2, box[1] + box[3] / 2
    sides = []
    for _ in range(2000):
        (cx, cy), side = jitter(box, (240, 320), DataConfig(), 4.0, rng)
        assert max(abs(cx - x), abs(cy - y)) <= min(1.5 * root, side / 2)
        sides.append(side / root)
    assert 4 * np.exp(-0.5) <= min(sides) < 2.6
    assert 6.2 < max(sides) <= 4 * np.exp(0.5) + 1 / root
    assert abs(np.median(sides) - 4.0) < 0.15


def test_without_jitter_the_region_is_that_of_tracking():
    data = DataConfig(centre_jitter=0.0, scale_jitter=0.0)
    box = np.array([50.0, 40.0, 30.0, 20.0])
    found = jitter(box, (240, 320), data, 4.0, np.random.default_rng(0))
    assert found == ((65.0, 50.0), 98.0)

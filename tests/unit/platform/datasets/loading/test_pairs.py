import cv2
import numpy as np
import pytest

from dytrack_model.config import variant
from dytrack_platform.config import DataConfig
from dytrack_platform.datasets.loading.pairs import ClipImages, choose_frames, draw_pair, jitter
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


def still(seed=3):
    """A clip of one frame of noise, stored without loss; its target is off every axis of it."""
    pixels = np.random.default_rng(seed).integers(0, 180, (120, 160, 3), np.uint8)
    return StoredClip(
        dataset="made",
        sequence="a",
        frames=np.array([0]),
        jpegs=[cv2.imencode(".png", pixels)[1].tobytes()],
        boxes_xywh=np.array([[60.0, 40.0, 30.0, 22.0]]),
        visible=np.ones(1, bool),
        scales=np.ones(1),
    )


def drawn(seed, *, augment=True, **changes):
    plain = {"brightness": 0.0, "grayscale_prob": 0.0, "flip": 0.0, "scale_jitter": 0.0}
    data = DataConfig(**{**plain, "centre_jitter": 1.0, **changes})
    rng = np.random.default_rng(seed)
    return draw_pair(ClipImages(still()), data, variant("test"), rng, augment=augment)


def mirrored(pair, before):
    """Say whether template and search were mirrored; they are nothing else than that."""
    said = []
    for now, then in ((pair.template, before.template), (pair.search, before.search)):
        straight, turned = np.array_equal(now, then), np.array_equal(now, then[:, ::-1])
        assert straight != turned
        said.append(turned)
    return tuple(said)


def test_the_target_is_mirrored_with_the_search_region_and_with_nothing_else():
    seen = set()
    for seed in range(40):
        before, pair = drawn(seed, augment=False), drawn(seed, flip=0.5)
        seen.add(mirrored(pair, before))
        x, *rest = before.box_cxcywh.tolist()
        assert x != 0.5
        expected = 1 - x if mirrored(pair, before)[1] else x
        np.testing.assert_allclose(pair.box_cxcywh, [expected, *rest])
        np.testing.assert_array_equal(pair.template_box_cxcywh, before.template_box_cxcywh)
    assert seen == {(False, False), (False, True), (True, False), (True, True)}


def test_what_is_mirrored_twice_is_as_it_was():
    """At a chance of 1 both are mirrored together, and then each alone."""
    for flip in (0.0, 1.0):
        pair, before = drawn(5, flip=flip), drawn(5, augment=False)
        assert mirrored(pair, before) == (False, False)
        np.testing.assert_array_equal(pair.box_cxcywh, before.box_cxcywh)


def test_brightness_goes_up_and_down_as_far_as_asked_for_each_image_alone():
    factors = []
    for seed in range(60):
        before, pair = drawn(seed, augment=False), drawn(seed, brightness=0.4)
        both = (pair.template, before.template), (pair.search, before.search)
        factors.append([now.sum() / then.sum() for now, then in both])
    factors = np.array(factors)
    assert 0.58 < factors.min() < 0.7
    assert 1.3 < factors.max() < 1.42
    assert np.abs(factors[:, 0] - factors[:, 1]).max() > 0.2


def test_grey_images_have_equal_channels_and_validation_keeps_its_colours():
    pair = drawn(0, grayscale_prob=1.0)
    for image in (pair.template, pair.search):
        assert (image == image[..., :1]).all()
    plain = drawn(0, augment=False, grayscale_prob=1.0, brightness=0.5, flip=0.5)
    assert not (plain.search == plain.search[..., :1]).all()

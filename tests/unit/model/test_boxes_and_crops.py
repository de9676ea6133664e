import numpy as np
import pytest
import torch

from dytrack_model.boxes import cxcywh_to_xyxy, iou_and_giou
from dytrack_model.crops import (
    box_from_crop,
    box_to_crop,
    centre,
    check_box,
    clip_box,
    crop,
    crop_side,
    share_inside,
)
from dytrack_model.errors import BoxError


def test_corners_lie_half_a_size_from_the_centre():
    corners = cxcywh_to_xyxy(torch.tensor([[5.0, 6.0, 4.0, 2.0]]))
    assert corners.tolist() == [[3.0, 5.0, 7.0, 7.0]]


def test_iou_of_hand_drawn_boxes():
    first = torch.tensor([[0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 4, 4]], dtype=torch.float32)
    second = torch.tensor([[1, 0, 3, 2], [2, 2, 3, 3], [0, 0, 4, 4]], dtype=torch.float32)
    iou, giou = iou_and_giou(first, second)
    torch.testing.assert_close(iou, torch.tensor([1 / 3, 0.0, 1.0]))
    torch.testing.assert_close(giou, torch.tensor([1 / 3, -7 / 9, 1.0]))


def test_boxes_without_area_overlap_nothing():
    iou, giou = iou_and_giou(torch.zeros(1, 4), torch.zeros(1, 4))
    assert iou.item() == 0
    assert torch.isfinite(giou).all()


def test_a_box_mapped_into_a_crop_and_back_is_the_same_box():
    rng = np.random.default_rng(0)
    for _ in range(100):
        box = np.array([*rng.uniform(-50, 300, 2), *rng.uniform(1, 200, 2)])
        around, side = tuple(rng.uniform(0, 300, 2)), float(rng.uniform(10, 600))
        back = box_from_crop(box_to_crop(box, around, side), around, side)
        np.testing.assert_allclose(back, box, atol=1e-9)


def test_a_crop_of_its_own_size_copies_the_pixels(image):
    cut = crop(image, (160.0, 120.0), 64.0, 64)
    np.testing.assert_array_equal(cut, image[88:152, 128:192])


def test_outside_the_image_a_crop_is_black(image):
    cut = crop(image, (0.0, 0.0), 40.0, 40)
    assert not cut[:19, :].any()
    assert cut[25:, 25:].any()


def test_a_target_lies_where_its_mapped_box_says(image):
    box = (150.0, 100.0, 50.0, 40.0)
    side = crop_side(box, 4.0)
    cut = crop(image, centre(box), side, 128)
    cx, cy, w, h = box_to_crop(box, centre(box), side) * 128
    white = np.argwhere((cut == 255).all(axis=2))
    assert white[:, 1].min() == pytest.approx(cx - w / 2, abs=1.5)
    assert white[:, 0].max() + 1 == pytest.approx(cy + h / 2, abs=1.5)


def test_a_clipped_box_keeps_ten_pixels_inside():
    box = clip_box(np.array([-100.0, 300.0, 20.0, 20.0]), 320, 240)
    assert box[0] == 0
    assert box[2] >= 10
    assert box[1] <= 230


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        # Ten pixels stay inside on every side, as in OSTrack.
        ((-100.0, -100.0, 20.0, 20.0), (0.0, 0.0, 10.0, 10.0)),
        ((500.0, 500.0, 20.0, 20.0), (310.0, 230.0, 10.0, 10.0)),
        ((-5.0, -7.0, 40.0, 30.0), (0.0, 0.0, 35.0, 23.0)),
        ((300.0, 220.0, 40.0, 30.0), (300.0, 220.0, 20.0, 20.0)),
        ((50.5, 60.5, 40.0, 30.0), (50.5, 60.5, 40.0, 30.0)),
        # A smaller target keeps its size, and all of it is inside.
        ((50.5, 60.5, 5.0, 4.5), (50.5, 60.5, 5.0, 4.5)),
        ((-3.0, 238.0, 5.0, 40.0), (0.0, 230.0, 5.0, 10.0)),
        ((400.0, 100.0, 6.0, 6.0), (314.0, 100.0, 6.0, 6.0)),
        ((100.0, 100.0, 0.5, 1.0), (99.25, 99.5, 2.0, 2.0)),
    ],
)
def test_a_clipped_box_keeps_ten_pixels_inside_or_all_of_a_smaller_one(box, clipped):
    np.testing.assert_allclose(clip_box(np.array(box), 320, 240), clipped)


@pytest.mark.parametrize("box", [(1, 1, 1e300, 1e300), (100, 100, 1300, 20), (5, 5, 10, 970)])
def test_a_box_of_many_images_is_refused(box):
    with pytest.raises(BoxError, match="is many times as large as the image of 320x240 pixels"):
        check_box(box, (320, 240))


@pytest.mark.parametrize(
    ("box", "share"),
    [
        ((10, 10, 20, 20), 1.0),
        ((-10, 0, 20, 20), 0.5),
        ((300, 220, 40, 40), 0.25),
        ((400, 0, 5, 5), 0.0),
    ],
)
def test_how_much_of_a_box_lies_inside(box, share):
    assert share_inside(box, (320, 240)) == pytest.approx(share)


@pytest.mark.parametrize("side", [2, 3])
@pytest.mark.parametrize(("length", "kept"), [(0.5, True), (1.0, True), (0.0, False), (-1, False)])
def test_a_target_has_an_area_however_small(side, length, kept):
    box = [10.0, 10.0, 20.0, 20.0]
    box[side] = length
    if kept:
        np.testing.assert_array_equal(check_box(box, (320, 240)), box)
        return
    with pytest.raises(BoxError, match="has no area"):
        check_box(box, (320, 240))


@pytest.mark.parametrize(
    ("place", "inside"),
    [
        ((319.5, 10), True),
        ((320, 10), False),
        ((10, 239.5), True),
        ((10, 240), False),
        ((-19.5, 10), True),
        ((-20, 10), False),
        ((10, -29.5), True),
        ((10, -30), False),
    ],
)
def test_a_target_lies_at_least_partly_in_the_image(place, inside):
    box = [*place, 20.0, 30.0]
    if inside:
        np.testing.assert_array_equal(check_box(box, (320, 240)), box)
        return
    with pytest.raises(BoxError, match="lies outside the image of 320x240 pixels"):
        check_box(box, (320, 240))

"""Crops of pictures in memory are those that tracking cuts."""

import numpy as np
import pytest
import torch

from dytrack_model.crops import crop
from dytrack_platform.datasets.resident.store import build, square_matrices

SIZE = 40
SQUARES = [  # picture, centre, side: inside, enlarged, reduced, across each border, and outside
    (0, (60.3, 41.7), 50.0),
    (0, (50.0, 50.0), 13.0),
    (1, (70.2, 38.4), 75.5),
    (1, (2.0, 3.5), 31.0),
    (0, (118.0, 89.0), 44.0),
    (1, (-80.0, -80.0), 20.0),
]


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    shapes = [(90, 120), (77, 141)]
    return [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]


@pytest.fixture(scope="module")
def store(pictures):
    return build(pictures, torch.device("cpu"))


def squares(mirrored=False):
    index, centres, sides = zip(*SQUARES, strict=True)
    mirrors = np.full(len(SQUARES), mirrored)
    matrices = square_matrices(np.array(centres), np.array(sides), SIZE, mirrors)
    return torch.tensor(index), torch.from_numpy(matrices)


def test_pictures_lie_one_after_the_other(store, pictures):
    assert len(store) == 2
    for number, picture in enumerate(pictures):
        begin = int(store.offsets[number])
        height, width = int(store.heights[number]), int(store.widths[number])
        whole = store.pixels[begin : begin + height * width].reshape(height, width, 3)
        assert np.array_equal(whole.numpy(), picture)


def test_a_store_may_be_empty():
    store = build([], torch.device("cpu"))
    assert len(store) == 0
    assert store.pixels.shape == (0, 3)


def test_crops_are_those_of_tracking(store, pictures):
    index, matrices = squares()
    found = store.crops(index, matrices, SIZE)
    assert found.dtype == torch.float32
    for one, (number, centre, side) in zip(found, SQUARES, strict=True):
        assert np.array_equal(one.numpy(), crop(pictures[number], centre, side, SIZE))


def test_a_mirrored_crop_is_the_crop_mirrored(store):
    index, matrices = squares()
    _, mirrored = squares(mirrored=True)
    straight, turned = (store.crops(index, m, SIZE) for m in (matrices, mirrored))
    assert (straight - turned.flip(2)).abs().mean() < 3  # OpenCV rounds places to 1/32


def test_the_four_taps_of_a_device_are_opencvs_but_for_its_rounding(store):
    index, matrices = squares()
    taps = store._crops_by_taps(index, matrices.float(), SIZE)
    apart = (taps - store.crops(index, matrices, SIZE)).abs()
    assert apart.max() <= 255 * 2 / 32 + 1  # on noise, the worst that there is
    assert apart.mean() < 2
    assert not taps[-1].any(), "outside of a picture is black"


def test_the_four_taps_are_exact_where_pixels_meet(store, pictures):
    """A square of as many pixels as the crop has, on whole pixels."""
    matrices = square_matrices(np.array([[40.0, 40.0]]), np.array([40.0]), SIZE, np.zeros(1, bool))
    found = store._crops_by_taps(torch.tensor([0]), torch.from_numpy(matrices).float(), SIZE)
    assert torch.equal(found[0], torch.from_numpy(pictures[0][20:60, 20:60]).float())

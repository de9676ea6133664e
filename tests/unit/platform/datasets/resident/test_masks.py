"""COCO's run lengths, and things cut out of pictures by them."""

import json

import cv2
import numpy as np
import pytest

from dytrack_platform.datasets.resident.masks import (
    HULL_POINTS,
    cut_out,
    decode_runs,
    read_coco,
    read_folder,
)
from dytrack_platform.errors import DataError
from dytrack_platform.storage.tree import Tree

HEIGHT, WIDTH = 40, 50


@pytest.fixture
def disc():
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (x - 24) ** 2 + (y - 19) ** 2 < 12**2


def assert_silhouette(found, disc):
    """Its edge is soft: some corners of pixels fade away."""
    alpha, mask = found.picture[..., 3], disc[8:31, 13:36]
    assert alpha[11, 11] == 255
    assert alpha[0, 0] == 0
    assert ((alpha > 127) != mask).sum() <= 12


def runs_of(mask):
    """Count outside and inside by turns, column by column."""
    flat, runs, value = mask.T.ravel(), [], False
    while len(flat):
        other = np.flatnonzero(flat != value)
        length = int(other[0]) if len(other) else len(flat)
        runs.append(length)
        flat, value = flat[length:], not value
    return runs


def compressed(runs):
    """Write runs as maskApi.c does (rleToString)."""
    text = ""
    for number, run in enumerate(runs):
        value, more = run - (runs[number - 2] if number > 2 else 0), True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != -1 if bits & 0x10 else value != 0
            text += chr((bits | 0x20 if more else bits) + 48)
    return text


def test_runs_go_down_the_columns():
    mask = decode_runs({"size": [2, 3], "counts": [1, 2, 3]})
    assert mask.tolist() == [[False, True, False], [True, False, False]]


def test_compressed_runs_by_hand():
    """100 needs two characters; the fourth and fifth run are differences, -1 and -9."""
    mask = decode_runs({"size": [12, 10], "counts": "T35:OG"})
    expected = np.repeat([False, True, False, True, False], [100, 5, 10, 4, 1])
    assert mask.T.ravel().tolist() == expected.tolist()


def test_both_forms_of_a_mask_are_the_mask(disc):
    for counts in (runs_of(disc), compressed(runs_of(disc))):
        mask = decode_runs({"size": [HEIGHT, WIDTH], "counts": counts})
        assert mask.shape == disc.shape
        assert np.array_equal(mask, disc)


def test_runs_that_do_not_fill_the_picture_are_damaged():
    with pytest.raises(DataError, match="mask of 2x3 has 5 pixels"):
        decode_runs({"size": [2, 3], "counts": [1, 4]})


def test_a_cut_out_is_the_things_box_with_its_silhouette(disc):
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    found = cut_out(pixels, disc, "disc")
    assert found.category == "disc"
    assert found.picture.shape == (23, 23, 4)
    assert np.array_equal(found.picture[..., :3], pixels[8:31, 13:36])
    assert_silhouette(found, disc)
    assert found.hull.shape == (HULL_POINTS, 2)
    assert found.hull.min(axis=0).tolist() == [0.5, 0.5]
    assert found.hull.max(axis=0).tolist() == [22.5, 22.5]


def test_what_is_small_thin_or_nothing_is_left_out(disc):
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    small, thin = np.zeros_like(disc), np.eye(HEIGHT, WIDTH, dtype=bool)
    small[3:10, 3:10] = True
    for mask in (small, thin, np.zeros_like(disc)):
        assert cut_out(pixels, mask, "") is None


@pytest.fixture
def coco(folder, disc):
    """One picture with a disc, a crowd, an outline and a mask of another size."""
    folder.image("train2017/000000000007.jpg", 90, (WIDTH, HEIGHT))
    mask = {"size": [HEIGHT, WIDTH], "counts": compressed(runs_of(disc))}
    annotation = {"image_id": 7, "category_id": 3, "bbox": [13, 8, 23, 23]}
    annotations = [
        {**annotation, "id": 1, "segmentation": mask},
        {**annotation, "id": 2, "segmentation": mask, "iscrowd": 1},
        {**annotation, "id": 3, "segmentation": [[1, 1, 20, 1, 20, 20]]},
        {**annotation, "id": 4, "segmentation": {"size": [2, 3], "counts": [1, 2, 3]}},
        {**annotation, "id": 5, "image_id": 8, "segmentation": mask},
    ]
    names = {7: "000000000007.jpg", 8: "000000000008.jpg"}
    content = {
        "images": [{"id": number, "file_name": name} for number, name in names.items()],
        "categories": [{"id": 3, "name": "disc"}],
        "annotations": annotations,
    }
    folder.text("annotations/masks.json", json.dumps(content))
    return folder


def test_coco_gives_the_objects_with_run_lengths(coco, disc):
    (found,) = read_coco(Tree(str(coco)), "train", "masks.json")
    assert found.category == "disc"
    assert_silhouette(found, disc)


@pytest.mark.parametrize(
    ("size", "counts"), [([2, 3], [1, 2]), ([2, 3], [-1, 7]), ([10**6, 10**6], [10**12])]
)
def test_a_damaged_mask_is_refused_before_it_takes_memory(size, counts):
    with pytest.raises(DataError, match=r"a run-length mask of .* it is damaged"):
        decode_runs({"size": size, "counts": counts})


def test_a_damaged_annotation_file_is_named(coco):
    coco.text("annotations/instances_train2017.json", "[]")
    with pytest.raises(DataError, match=r"instances_train2017\.json: is not COCO's"):
        list(read_coco(Tree(str(coco)), "train"))


def test_a_folder_of_rgba_files(folder, disc):
    rgba = np.dstack([np.full((HEIGHT, WIDTH, 3), (10, 20, 200), np.uint8), disc * np.uint8(255)])
    folder.data("one.png", cv2.imencode(".png", rgba)[1].tobytes())
    folder.text("index.json", json.dumps([{"file": "one.png", "category": "disc"}]))
    (found,) = read_folder(Tree(str(folder)))
    assert found.picture[11, 11].tolist() == [200, 20, 10, 255], "red first"
    assert found.category == "disc"


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (None, "holds no index.json"),
        ("{", "is no list of objects"),
        ('[{"category": "disc"}]', "is no list of objects"),
        ('[{"file": "grey.png"}]', "no picture with a silhouette"),
    ],
)
def test_a_damaged_folder_says_what_is_wrong(folder, index, message):
    folder.image("grey.png", 90)
    if index is not None:
        folder.text("index.json", index)
    with pytest.raises(DataError, match=message):
        list(read_folder(Tree(str(folder))))

import json
import tracemalloc

import pytest

from dytrack_platform.datasets.readers import read
from dytrack_platform.errors import DataError


def annotations(*boxes, **changes):
    return {
        "images": [
            {"id": 9, "file_name": "000000000009.jpg", "width": 32, "height": 24},
            {"id": 25, "file_name": "000000000025.jpg", "width": 32, "height": 24},
        ],
        "annotations": [
            {"id": i, "image_id": image, "category_id": 90, "iscrowd": 0, "bbox": box}
            for i, (image, box) in enumerate(boxes, start=1)
        ],
        "categories": [{"id": 90, "name": "toothbrush"}],
        **changes,
    }


def write(folder, content, split="val"):
    folder.text(f"annotations/instances_{split}2017.json", json.dumps(content))
    folder.images(f"{split}2017", (9, 25), "{:012d}.jpg")


def test_each_object_is_a_sequence_of_one_frame(folder, number_of):
    write(folder, annotations((25, [1.5, 2, 8, 6]), (9, [3, 4, 5, 6])))
    second, first = read("coco", str(folder), "val")
    assert (second.name, first.name) == ("000000000009#2", "000000000025#1")
    assert first.boxes_xywh.tolist() == [[1.5, 2, 8, 6]]
    assert first.object_class == "toothbrush"
    assert number_of(first.frames.read(0)) == 25


def test_groups_are_left_out_and_images_without_objects_give_nothing(folder, faults):
    content = annotations((9, [1, 2, 8, 6]), (9, [1, 2, 8, 6]))
    content["annotations"][1] |= {"iscrowd": 1, "segmentation": {"counts": [1], "size": [24, 32]}}
    write(folder, content)
    assert len(list(read("coco", str(folder), "val", faults))) == 1
    assert faults == []


def test_a_box_of_zero_height_is_a_fault(folder, faults):
    write(folder, annotations((9, [1, 2, 8, 0]), (25, [1, 2, 8, 6]), (25, [1, None])))
    assert [s.name for s in read("coco", str(folder), "val", faults)] == ["000000000025#2"]
    assert "annotation 1: the box 1,2,8,0 has no area" in faults[0].reason
    assert "annotation 3 has no box of four numbers" in faults[1].reason


def test_a_grey_image_is_read_as_three_channels(folder):
    write(folder, annotations((9, [1, 2, 8, 6])))
    import cv2
    import numpy as np

    grey = cv2.imencode(".jpg", np.full((24, 32), 77, np.uint8))[1].tobytes()
    folder.data("val2017/000000000009.jpg", grey)
    (still,) = read("coco", str(folder), "val")
    assert still.frames.read(0).shape == (24, 32, 3)


HUGE = "9" * 30
NUMBERED = (
    f'{{"images": [], "annotations": [{{"id": 1, "image_id": {HUGE}, "bbox": [1, 2, 3, 4]}}]}}'
)


@pytest.mark.parametrize("content", ["", "[]", '{"images": []}', '{"images": 3}', NUMBERED])
def test_a_file_that_is_not_an_annotation_file_is_named(folder, content):
    folder.text("annotations/instances_train2017.json", content)
    with pytest.raises(DataError, match=r"instances_train2017\.json: is not COCO's"):
        list(read("coco", str(folder), "train"))


def test_the_reference_images_are_read(shared, faults):
    root = shared / "data" / "coco"
    stills = [s for split in ("train", "val") for s in read("coco", str(root), split, faults)]
    assert len(stills) == 1827
    assert faults == []
    assert stills[0].frames.read(0).shape == (384, 512, 3)


def test_an_image_or_an_object_that_is_listed_twice_is_said(folder, faults):
    content = annotations((9, [1, 2, 8, 6]), (25, [3, 2, 8, 6]), (9, [5, 2, 8, 6]))
    content["images"].append({"id": 25, "file_name": "other.jpg", "width": 32, "height": 24})
    content["annotations"][2]["id"] = content["annotations"][0]["id"]
    write(folder, content)
    (sequence,) = read("coco", str(folder), "val", faults)
    assert sequence.boxes_xywh.tolist() == [[1, 2, 8, 6]]
    assert sorted(fault.reason for fault in faults) == [
        "is listed more than once; it is used once",
        "two images have the id 25: it is not clear which of them the box is of",
    ]


@pytest.mark.slow
def test_outlines_are_dropped_while_the_file_is_parsed(folder):
    """They are most of the file: memory must follow the boxes, not the outlines."""
    content = annotations(*[(9, [1, 2, 8, 6])] * 600)
    for annotation in content["annotations"]:
        annotation["segmentation"] = [[number + 0.25 for number in range(1000)]]
    write(folder, content)
    size = (folder.root / "annotations/instances_val2017.json").stat().st_size
    tracemalloc.start()
    try:
        stills = list(read("coco", str(folder), "val"))
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(stills) == 600
    assert len({id(still.frames) for still in stills}) == 1, "of one picture"
    assert len({id(still.boxes_xywh.base) for still in stills}) == 1, "rows of one array"
    assert held < 0.5 * size
    # The bytes and their text at once; numbers as objects take four times the file.
    assert peak < 2.5 * size

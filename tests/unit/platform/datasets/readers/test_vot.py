import numpy as np
import pytest

from dytrack_platform.datasets.io.regions import parse_region, region_box
from dytrack_platform.datasets.readers import read
from dytrack_platform.errors import DataError


def a_sequence(folder, name="seq1", regions="20,40,40,30\n22,40,40,30\n", frames=2):
    folder.text("sequences/list.txt", f"{name}\n")
    folder.text(f"sequences/{name}/sequence", "name=seq1\nchannels.color=color/%08d.jpg\n")
    folder.images(f"sequences/{name}/color", range(1, frames + 1))
    folder.text(f"sequences/{name}/groundtruth.txt", regions)


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("20,40,40,30", (20, 40, 40, 30)),
        ("1,2,11,2,11,7,1,7", (1, 2, 10, 5)),
        ("0,0,10,3,5,9", (0, 0, 10, 9)),
        ("1", None),
        ("nan,nan,nan,nan", None),
        ("m5,7,4,3,5,2,2,1", (6, 8, 3, 2)),  # rows 0000 / 0110 / 0... then one more: see below
        ("m5,7,4,3,12", None),
        ("m5,7,0,0", None),
    ],
)
def test_every_kind_of_region_gives_its_extent(text, box):
    found = region_box(parse_region(text))
    assert (found is None) == (box is None)
    if box is not None:
        x, y, w, h = box
        if text.startswith("m"):
            mask = np.zeros(12, bool)
            mask[5:7] = True
            mask[9] = True
            rows, columns = np.nonzero(mask.reshape(3, 4))
            x, y = 5 + columns.min(), 7 + rows.min()
            w, h = np.ptp(columns) + 1, np.ptp(rows) + 1
        assert found == (x, y, w, h)


@pytest.mark.parametrize("text", ["1,2,3", "1,2,3,4,5", "a,b,c,d", "m1,2", "m0,0,2,2,9", ""])
def test_a_line_that_is_no_region_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        region_box(parse_region(text))


def test_a_mask_larger_than_any_image_is_refused_without_making_it():
    with pytest.raises(ValueError, match="larger than any image"):
        region_box(parse_region("m0,0,1000000,1000000,5"))


def test_rectangles_and_tags_are_read(folder):
    a_sequence(folder)
    folder.text("sequences/seq1/occlusion.tag", "0\n1\n")
    folder.text("sequences/seq1/camera_motion.label", "0\n")
    folder.text("sequences/seq1/anchor.value", "1\n-1\n")
    (sequence,) = read("vot", str(folder))
    assert sequence.boxes_xywh.tolist() == [[20, 40, 40, 30], [22, 40, 40, 30]]
    assert sequence.attributes == ("occlusion",)


def test_rows_missing_at_the_end_mean_not_known(folder, faults):
    a_sequence(folder, regions="20,40,40,30\nnan,nan,nan,nan\n0\n", frames=5)
    (sequence,) = read("vot", str(folder), None, faults)
    assert sequence.visible.tolist() == [True, False, False, False, False]
    assert faults == []


def test_several_objects_get_their_own_sequences(folder):
    a_sequence(folder)
    (folder.root / "sequences/seq1/groundtruth.txt").unlink()
    for name in ("cat", "dog"):
        folder.text(f"sequences/seq1/groundtruth_{name}.txt", "1,2,3,4\n1,2,3,4\n")
    assert [s.name for s in read("vot", str(folder))] == ["seq1.cat", "seq1.dog"]


def test_the_legacy_layout_has_images_in_the_sequence_folder(folder):
    folder.text("list.txt", "ball\n")
    folder.images("ball", range(1, 3))
    folder.text("ball/groundtruth.txt", "1,2,11,2,11,7,1,7\n1,2,11,2,11,7,1,7\n")
    (sequence,) = read("vot", str(folder))
    assert sequence.boxes_xywh[0].tolist() == [1, 2, 10, 5]


def test_a_bad_row_is_a_fault_of_its_frame(folder, faults):
    a_sequence(folder, regions="1,2,3,4\n1,2,3,4,5\n")
    (sequence,) = read("vot", str(folder), None, faults)
    assert [f.frame for f in faults] == [1]
    assert sequence.visible.tolist() == [True, False]


def test_a_list_that_is_missing_is_named(folder):
    folder.images("ball", range(1, 3))
    with pytest.raises(DataError, match=r"list\.txt: no such list"):
        list(read("vot", str(folder)))

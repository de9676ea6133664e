import pytest

from dytrack_platform.datasets.readers import read
from dytrack_platform.errors import DataError


def a_sequence(folder, name="airplane-1", frames=4, boxes=None, **flags):
    inside = f"{name.rsplit('-', 1)[0]}/{name}"
    folder.images(f"{inside}/img", range(1, frames + 1))
    rows = boxes or [f"{367 + i},101,41,16" for i in range(frames)]
    folder.text(f"{inside}/groundtruth.txt", "\n".join(rows) + "\n")
    folder.text(f"{inside}/full_occlusion.txt", flags.get("occluded", ",".join("0" * frames)))
    folder.text(f"{inside}/out_of_view.txt", flags.get("away", ",".join("0" * frames)) + "\n")


def test_boxes_flags_and_class_are_read(folder, number_of):
    a_sequence(folder, "electric-fan-20", occluded="0,1,0,0", away="0,0,0,1")
    (sequence,) = read("lasot", str(folder))
    assert sequence.name == "electric-fan-20"
    assert sequence.object_class == "electric-fan"
    assert sequence.boxes_xywh[0].tolist() == [367, 101, 41, 16]
    assert sequence.boxes_xywh[-1].tolist() == [370, 101, 41, 16]
    assert sequence.visible.tolist() == [True, False, True, False]
    assert number_of(sequence.frames.read(3)) == 4


def test_the_last_line_of_the_split_needs_no_newline(folder):
    for name in ("airplane-1", "volleyball-19"):
        a_sequence(folder, name)
    folder.text("testing_set.txt", "airplane-1\r\nvolleyball-19")
    assert [s.name for s in read("lasot", str(folder), "test")] == ["airplane-1", "volleyball-19"]


def test_a_download_by_category_has_no_lists_but_can_be_read_whole(folder):
    for number in (1, 2, 10):
        a_sequence(folder, f"bus-{number}")
    assert [s.name for s in read("lasot", str(folder))] == ["bus-1", "bus-2", "bus-10"]
    with pytest.raises(DataError, match=r"testing_set\.txt: no such list of sequences"):
        list(read("lasot", str(folder), "test"))


def test_one_image_more_than_boxes_is_reported_and_left_out(folder, faults):
    a_sequence(folder, "airplane-14", frames=5, boxes=["1,1,9,9"] * 4)
    (sequence,) = read("lasot", str(folder), None, faults)
    assert len(sequence) == 4
    assert faults[-1].reason == "4 boxes for 5 frames; only the first 4 are used"


@pytest.mark.parametrize("name", ["full_occlusion.txt", "out_of_view.txt"])
def test_flags_that_are_fewer_than_the_boxes_are_a_fault(folder, faults, name):
    a_sequence(folder, "airplane-15", frames=6, boxes=["1,1,9,9"] * 6, away="0,0,0,0,0,0")
    folder.text(f"airplane/airplane-15/{name}", "0,0,0,1")
    (sequence,) = read("lasot", str(folder), None, faults)
    assert [f.reason for f in faults] == [f"{name} has 4 flags for 6 boxes"]
    assert sequence.visible.tolist() == [True, True, True, False, True, True]


def test_invalid_boxes_of_visible_frames_are_faults(folder, faults):
    rows = ["1,1,9,9", "101,50,30,-11", "1,1,-1,-1", "1,1,0,0"]
    a_sequence(folder, "tiger-6", boxes=rows)
    (sequence,) = read("lasot", str(folder), None, faults)
    assert sequence.visible.tolist() == [True, False, False, False]
    assert [f.frame for f in faults] == [1, 2, 3]


def test_an_absent_frame_may_keep_its_box_or_have_none(folder, faults):
    a_sequence(
        folder, "swing-14", boxes=["1,1,9,9", "0,0,0,0", "5,5,9,9", "1,1,9,9"], away="0,1,1,0"
    )
    (sequence,) = read("lasot", str(folder), None, faults)
    assert sequence.visible.tolist() == [True, False, False, True]
    assert sequence.boxes_xywh[2].tolist() == [5, 5, 9, 9]
    assert faults == []


def test_the_extension_has_the_same_tree_and_is_all_test(folder):
    a_sequence(folder, "atv-1")
    (sequence,) = read("lasotext", str(folder), "test")
    assert (sequence.dataset, sequence.name) == ("lasotext", "atv-1")

import numpy as np
import pytest

from dytrack_platform.datasets.readers import read
from dytrack_platform.errors import DataError


def a_split(folder, split="val", name="GOT-10k_Val_000001", frames=5):
    folder.text(f"{split}/list.txt", name)  # no newline at the end, as when cut by hand
    folder.images(f"{split}/{name}", range(1, frames + 1))
    rows = [f"{i}.0000,2.0000,8.0000,6.5000" for i in range(1, frames + 1)]
    folder.text(f"{split}/{name}/groundtruth.txt", "\r\n".join(rows))
    return f"{split}/{name}"


def test_boxes_labels_class_and_frames_are_read(folder, number_of):
    inside = a_split(folder)
    folder.text(f"{inside}/absence.label", "0\n0\n0\n1\n0\n")
    folder.text(f"{inside}/cover.label", "8\n8\n0\n0\n7\n")
    folder.text(f"{inside}/meta_info.ini", "[METAINFO]\nobject_class: racing car\n")
    (sequence,) = read("got10k", str(folder), "val")
    assert sequence.name == "GOT-10k_Val_000001"
    assert sequence.boxes_xywh[0].tolist() == [1, 2, 8, 6.5]
    assert sequence.boxes_xywh[-1].tolist() == [5, 2, 8, 6.5]
    assert sequence.visible.tolist() == [True, True, False, False, True]
    assert sequence.object_class == "racing car"
    assert number_of(sequence.frames.read(4)) == 5


def test_the_hidden_test_split_gives_one_box_and_every_frame(folder, faults):
    inside = a_split(folder, "test", "GOT-10k_Test_000001")
    folder.text(f"{inside}/groundtruth.txt", "1,2,8,6.5\n")
    (sequence,) = read("got10k", str(folder), "test", faults)
    assert len(sequence) == len(sequence.frames) == 5
    assert np.isnan(sequence.boxes_xywh[1:]).all()
    assert sequence.visible.tolist() == [True, False, False, False, False]
    assert faults == []


def test_an_index_list_chooses_from_the_training_split(folder):
    names = [f"GOT-10k_Train_{i:06d}" for i in range(1, 4)]
    for name in names:
        a_split(folder, "train", name, frames=2)
    folder.text("train/list.txt", "\n".join(names))
    folder.text("vottrain.txt", "2\n0\n")
    assert [s.name for s in read("got10k", str(folder), "vottrain")] == [names[2], names[0]]
    folder.text("vottrain.txt", "3\n")
    with pytest.raises(DataError, match="indices from 0 to 2"):
        list(read("got10k", str(folder), "vottrain"))


@pytest.mark.parametrize(("split", "end"), [("vottrain", "vot_train"), ("votval", "vot_val")])
def test_index_lists_are_found_under_the_name_that_they_are_handed_on_by(folder, split, end):
    for number in (1, 2):
        a_split(folder, "train", f"GOT-10k_Train_{number:06d}", frames=2)
    folder.text("train/list.txt", "GOT-10k_Train_000001\nGOT-10k_Train_000002\n")
    folder.text(f"got10k_{end}_split.txt", "1\n")
    assert [s.name for s in read("got10k", str(folder), split)] == ["GOT-10k_Train_000002"]


def test_a_sequence_that_is_listed_twice_is_used_once(folder, faults):
    a_split(folder)
    folder.text("val/list.txt", "GOT-10k_Val_000001\n" * 2)
    assert len(list(read("got10k", str(folder), "val", faults))) == 1
    assert [f.reason for f in faults] == ["is listed more than once; it is used once"]


def test_boxes_and_frames_that_are_known_to_be_wrong_are_reported(folder, faults):
    names = [f"GOT-10k_Train_{number:06d}" for number in (8622, 8623, 8637, 9059, 1636, 1638)]
    for name in names:
        a_split(folder, "train", name, frames=60)
    folder.text("train/list.txt", "\n".join(names))
    good, first, second = read("got10k", str(folder), "train", faults)
    assert [good.name, first.name, second.name] == [names[0], *names[4:]]
    assert good.visible.all()
    assert (~first.visible).nonzero()[0].tolist() == list(range(42, 53))  # files 43 to 53
    assert (~second.visible).nonzero()[0].tolist() == list(range(24, 33))  # files 25 to 33
    assert [f.sequence for f in faults if f.frame is None] == names[1:4]
    assert [f.frame for f in faults if f.sequence == names[4]] == list(range(42, 53))


def test_a_box_beyond_the_image_is_rejected_when_its_window_is_cut(folder):
    from dytrack_platform.datasets.prepared.windows import ClipConfig, cut_window

    inside = a_split(folder, frames=2)
    folder.text(f"{inside}/groundtruth.txt", "1,2,8,6\n900,700,8,6\n")
    (sequence,) = read("got10k", str(folder), "val")
    with pytest.raises(DataError, match="lies outside of its image of 32x24"):
        cut_window(sequence.frames.read(1), sequence.boxes_xywh[1], ClipConfig())


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "../train", "/etc"])
def test_a_list_with_names_that_are_none_is_read_around(folder, faults, name):
    a_split(folder)
    folder.text("val/list.txt", f"{name}\nGOT-10k_Val_000001\n")
    assert [s.name for s in read("got10k", str(folder), "val", faults)] == ["GOT-10k_Val_000001"]
    assert len(faults) == 1


def test_a_box_that_is_out_of_view_without_a_label_is_a_fault(folder, faults):
    inside = a_split(folder, frames=3)
    folder.text(f"{inside}/groundtruth.txt", "1,2,8,6\n-1,-1,-1,-1\n1,2,0,6\n")
    (sequence,) = read("got10k", str(folder), "val", faults)
    assert sequence.visible.tolist() == [True, False, False]
    assert [(f.frame, f.reason) for f in faults] == [
        (1, "the box -1,-1,-1,-1 has no area or is not finite"),
        (2, "the box 1,2,0,6 has no area or is not finite"),
    ]


def test_a_half_unzipped_split_is_read_as_far_as_it_goes(folder, faults):
    a_split(folder, "val", "GOT-10k_Val_000001")
    folder.text("val/list.txt", "GOT-10k_Val_000001\nGOT-10k_Val_000002\n")
    assert [s.name for s in read("got10k", str(folder), "val", faults)] == ["GOT-10k_Val_000001"]
    assert [f.sequence for f in faults] == ["GOT-10k_Val_000002"]
    assert "no such folder" in faults[0].reason


def test_frames_of_another_size_inside_a_sequence_are_read(folder):
    inside = a_split(folder, frames=3)
    folder.image(f"{inside}/00000002.jpg", 22, size=(64, 48))
    (sequence,) = read("got10k", str(folder), "val")
    assert [sequence.frames.read(i).shape for i in range(3)] == [
        (24, 32, 3),
        (48, 64, 3),
        (24, 32, 3),
    ]


def test_the_reference_tree_of_the_official_toolkit_is_read(shared):
    root = shared / "evaluation" / "got10k_synthetic"
    faults = []
    with pytest.raises(DataError, match="not one sequence"):  # it has no images
        list(read("got10k", str(root), "val", faults))
    assert faults
    assert all("holds no image" in fault.reason for fault in faults)

import pytest

from dytrack_platform.datasets.readers import read
from dytrack_platform.errors import DataError


def a_sequence(folder, name="INF_run1", boxes=("0,0,30,20", "1,-2,30,20", "0,0,0,0")):
    for number, suffix in enumerate((".png", ".jpg", ".png")):
        folder.image(f"{name}/imgs/{number:05d}{suffix}", 20 + number)
    folder.text(f"{name}/groundtruth.txt", "\r\n".join(boxes))


def test_mixed_image_names_and_boxes_from_zero_are_read(folder, number_of, faults):
    a_sequence(folder)
    (sequence,) = read("tnl2k", str(folder), None, faults)
    assert sequence.boxes_xywh[0].tolist() == [0, 0, 30, 20]
    assert sequence.visible.tolist() == [True, True, False]
    assert [number_of(frame) for frame in sequence.frames.iterate()] == [0, 1, 2]
    assert faults == []


def test_the_toolkits_absence_flags_are_used_even_where_their_number_differs(folder):
    a_sequence(folder, "a", boxes=("0,0,30,20",) * 3)
    folder.text("absent/a.txt", "0\n1\n0\n1\n")
    (sequence,) = read("tnl2k", str(folder))
    assert sequence.visible.tolist() == [True, False, True]


def test_another_number_of_frames_than_boxes_is_reported(folder, faults):
    a_sequence(folder, boxes=("0,0,30,20",) * 5)
    (sequence,) = read("tnl2k", str(folder), None, faults)
    assert len(sequence) == 3
    assert faults[0].reason == "5 boxes for 3 frames; only the first 3 are used"


def test_a_damaged_image_fails_alone(folder):
    a_sequence(folder)
    path = folder.root / "INF_run1/imgs/00000.png"
    path.write_bytes(path.read_bytes()[:60])
    (sequence,) = read("tnl2k", str(folder))
    with pytest.raises(DataError, match=r"00000\.png: the image is cut short"):
        sequence.frames.read(0)
    assert [frame is None for frame in sequence.frames.iterate()] == [True, False, False]


def test_a_list_chooses_sequences(folder):
    a_sequence(folder, "a-Done")
    a_sequence(folder, "b_done")
    folder.text("TNL2K_testing_set.txt", "b_done\n")
    assert [s.name for s in read("tnl2k", str(folder), "TNL2K_testing_set")] == ["b_done"]

import pytest

from dytrack_platform.datasets.readers import read
from dytrack_platform.errors import DataError


def rows(count):
    return "".join(f"{703 + i},361,57,114\n" for i in range(count))


def test_a_whole_folder_and_its_absent_frames_are_read(folder, faults):
    folder.images("data_seq/UAV123/bike1", range(1, 5), "{:06d}.jpg")
    folder.text(
        "anno/UAV123/bike1.txt", "703,361,57,114\nNaN,NaN,NaN,NaN\n704,361,57,114\n705,1,2,3"
    )
    (sequence,) = read("uav123", str(folder))
    assert sequence.visible.tolist() == [True, False, True, True]
    assert sequence.boxes_xywh[-1].tolist() == [705, 1, 2, 3]
    assert faults == []


@pytest.mark.parametrize(
    ("name", "images", "first", "count"),
    [("car1_2", "car1", 751, 5), ("bird1_2", "bird1", 775, 5), ("uav1_3", "uav1", 2473, 5)],
)
def test_parts_of_a_folder_start_where_the_owner_says(folder, name, images, first, count):
    folder.images(f"data_seq/UAV123/{images}", range(first - 2, first + 10), "{:06d}.jpg", (8, 8))
    folder.text(f"anno/UAV123/{name}.txt", rows(count))
    (sequence,) = read("uav123", str(folder), "test")
    assert len(sequence) == count
    assert sequence.frames.path(0).endswith(f"{first:06d}.jpg")


def test_the_owners_attributes_are_read_where_they_are(folder, faults):
    for name in ("bike1", "bike2", "bike3"):
        folder.images(f"data_seq/UAV123/{name}", range(1, 3), "{:06d}.jpg")
        folder.text(f"anno/UAV123/{name}.txt", rows(2))
    folder.text("anno/UAV123/att/bike1.txt", "1,0,0,0,0,1,0,0,0,0,0,1\r\n")
    folder.text("anno/UAV123/att/bike3.txt", "1,0\n")
    first, second = read("uav123", str(folder), None, faults)
    assert first.attributes == ("SV", "POC", "SOB")
    assert second.attributes == ()
    assert [f.reason.rpartition("/")[2] for f in faults] == ["bike3.txt: must hold 12 flags, got 2"]


@pytest.mark.parametrize("part", ["0", "4", "99"])
def test_a_part_that_the_owner_does_not_know_is_a_fault(folder, faults, part):
    folder.images("data_seq/UAV123/car1", range(1, 4), "{:06d}.jpg")
    folder.text("anno/UAV123/car1_1.txt", rows(3))
    folder.text(f"anno/UAV123/car1_{part}.txt", rows(3))
    assert [s.name for s in read("uav123", str(folder), None, faults)] == ["car1_1"]
    assert [f.reason for f in faults] == [f"car1_{part}: UAV123 has 3 parts of car1"]


def test_names_that_only_look_like_parts_have_folders_of_their_own(folder):
    folder.images("data_seq/UAV123/car1_s", range(1, 4), "{:06d}.jpg")
    folder.text("anno/UAV123/car1_s.txt", rows(3))
    assert [s.name for s in read("uav123", str(folder))] == ["car1_s"]


def test_the_long_benchmark_takes_the_whole_folder(folder):
    folder.images("data_seq/UAV123/car1", range(1, 4), "{:06d}.jpg")
    folder.text("anno/UAV20L/car1.txt", rows(3))
    (sequence,) = read("uav20l", str(folder))
    assert (sequence.dataset, len(sequence)) == ("uav20l", 3)


def test_another_split_is_refused(folder):
    folder.text("anno/UAV123/bike1.txt", rows(1))
    with pytest.raises(DataError, match="UAV123 has one split, test"):
        list(read("uav123", str(folder), "train"))


def test_published_files_hold_as_many_absent_frames_as_counted(shared):
    from dytrack_platform.datasets.io.text import parse_rows

    files = sorted((shared / "evaluation" / "uav123" / "groundtruth").glob("*.txt"))
    tables = [parse_rows(file.read_text()) for file in files]
    assert sum(len(boxes) for boxes, *_ in tables) == 10_468
    assert sum(int((boxes != boxes).all(axis=1).sum()) for boxes, *_ in tables) == 935
    assert all(table.unreadable == table.blank == table.passed_over == [] for table in tables)

import pytest

from dytrack_platform.datasets.readers import read
from dytrack_platform.errors import DataError


def rows(count, separator=",", end="\n"):
    return end.join(separator.join(("198", "214", "34", str(80 + i))) for i in range(count))


@pytest.mark.parametrize(
    ("separator", "end"), [(",", "\n"), ("\t", "\r\n"), ("\t", "\n"), (" ", "\n"), (", ", "\r\n")]
)
def test_every_delimiter_is_read_with_and_without_last_newline(folder, separator, end):
    folder.images("Basketball/img", range(1, 4), "{:04d}.jpg")
    for last in ("", end):
        folder.text("Basketball/groundtruth_rect.txt", rows(3, separator, end) + last)
        (sequence,) = read("otb", str(folder))
        assert sequence.boxes_xywh[0].tolist() == [198, 214, 34, 80]
        assert sequence.boxes_xywh[-1].tolist() == [198, 214, 34, 82]


def test_two_targets_get_their_own_sequences(folder):
    folder.images("Jogging/img", range(1, 4), "{:04d}.jpg")
    folder.text("Jogging/groundtruth_rect.1.txt", rows(3))
    folder.text("Jogging/groundtruth_rect.2.txt", rows(3))
    assert [s.name for s in read("otb", str(folder))] == ["Jogging-1", "Jogging-2"]
    folder.text("otb100.txt", "jogging_2\n")
    assert [s.name for s in read("otb", str(folder), "otb100")] == ["Jogging-2"]


def test_an_empty_file_of_boxes_is_no_target(folder):
    folder.images("Human4/img", range(1, 4), "{:04d}.jpg")
    folder.text("Human4/groundtruth_rect.1.txt", "")
    folder.text("Human4/groundtruth_rect.2.txt", rows(3))
    assert [s.name for s in read("otb", str(folder))] == ["Human4"]


def test_david_starts_at_its_frame_300(folder, number_of):
    folder.images("David/img", range(298, 771), "{:04d}.jpg", size=(8, 8))
    folder.text("David/groundtruth_rect.txt", rows(471))
    (sequence,) = read("otb", str(folder))
    assert len(sequence) == 471
    assert number_of(sequence.frames.read(0)) == 300 % 200
    assert sequence.frames.path(470).endswith("0770.jpg")


def test_tiger1_leaves_out_the_five_frames_that_the_owner_omits(folder, faults):
    folder.images("Tiger1/img", range(1, 355), "{:04d}.jpg", size=(8, 8))
    for count, first in ((354, 85), (349, 80)):  # as downloaded, and already cut
        folder.text("Tiger1/groundtruth_rect.txt", rows(count))
        (sequence,) = read("otb", str(folder), None, faults)
        assert len(sequence) == 349
        assert sequence.frames.path(0).endswith("0006.jpg")
        assert sequence.boxes_xywh[0].tolist() == [198, 214, 34, first]
    assert faults == []


def test_images_after_the_used_part_are_no_fault(folder, faults):
    folder.images("Football1/img", range(1, 81), "{:04d}.jpg", size=(8, 8))
    folder.text("Football1/groundtruth_rect.txt", rows(74))
    (sequence,) = read("otb", str(folder), None, faults)
    assert len(sequence) == 74
    assert faults == []


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("BlurCar1", 247, 988),
        ("BlurCar3", 3, 359),
        ("BlurCar4", 18, 397),
        ("Freeman3", 1, 460),
        ("Freeman4", 1, 283),
        ("Diving", 1, 215),
        ("Board", 1, 698),
    ],
)
def test_sequences_use_the_images_that_the_owner_uses(folder, faults, name, first, last):
    pattern = "{:05d}.jpg" if name == "Board" else "{:04d}.jpg"
    folder.images(f"{name}/img", range(first, last + 11), pattern, size=(8, 8))
    folder.text(f"{name}/groundtruth_rect.txt", rows(last - first + 1, "\t", "\r\n"))
    (sequence,) = read("otb", str(folder), None, faults)
    assert len(sequence) == len(sequence.frames) == last - first + 1
    assert sequence.frames.path(0).endswith(pattern.format(first))
    assert sequence.frames.path(len(sequence) - 1).endswith(pattern.format(last))
    assert faults == []


@pytest.mark.parametrize("name", ["Skating2-2", "skating2_2", "Skating2.2"])
def test_tools_names_of_a_second_target_lead_to_it(folder, name):
    folder.images("Skating2/img", range(1, 4), "{:04d}.jpg")
    folder.text("Skating2/groundtruth_rect.1.txt", rows(3))
    folder.text("Skating2/groundtruth_rect.2.txt", "9\t8\t7\t6\r\n" * 3)
    folder.text("otb100.txt", name)
    (sequence,) = read("otb", str(folder), "otb100")
    assert sequence.boxes_xywh[0].tolist() == [9, 8, 7, 6]


def test_the_board_has_five_digits(folder):
    folder.images("Board/img", range(1, 4), "{:05d}.jpg")
    folder.text("Board/groundtruth_rect.txt", rows(3))
    assert len(next(read("otb", str(folder)))) == 3


def test_a_bad_row_is_a_fault_of_its_frame(folder, faults):
    folder.images("BlurBody/img", range(1, 5), "{:04d}.jpg")
    folder.text("BlurBody/groundtruth_rect.txt", "1,2,3,4\n1,2,3\n1,2,x,4\n1,2,3,4\n")
    (sequence,) = read("otb", str(folder), None, faults)
    assert sequence.visible.tolist() == [True, False, False, True]
    assert [(f.frame, f.reason) for f in faults] == [
        (1, "the box is not four numbers"),
        (2, "the box is not four numbers"),
    ]


def test_a_listed_sequence_that_is_missing_is_a_fault(folder, faults):
    folder.images("Basketball/img", range(1, 4), "{:04d}.jpg")
    folder.text("Basketball/groundtruth_rect.txt", rows(3))
    folder.text("otb50.txt", "Basketball\nBiker\n")
    assert len(list(read("otb", str(folder), "otb50", faults))) == 1
    assert [f.sequence for f in faults] == ["Biker"]


def test_a_root_without_sequences_is_refused(folder):
    folder.text("readme.txt", "nothing here")
    with pytest.raises(DataError, match="holds no folder NAME/ with img/"):
        list(read("otb", str(folder)))


def test_the_hundred_published_files_are_all_read(shared):
    from dytrack_platform.datasets.io.text import parse_rows

    files = sorted((shared / "evaluation" / "otb100" / "groundtruth").glob("*.txt"))
    tables = {file.stem: parse_rows(file.read_text()) for file in files}
    assert len(files) == 100
    assert (
        sum(len(boxes) for boxes, *_ in tables.values()) == 59_035
    )  # of Tiger1, those 349 that count
    assert [name for name, table in tables.items() if table.unreadable or table.blank] == []
    assert [name for name, table in tables.items() if table.passed_over] == []

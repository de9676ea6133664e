import numpy as np
import pytest

from dytrack_platform.errors import ResultError
from dytrack_platform.evaluation.scoring.result_files import (
    format_boxes,
    read_boxes,
    read_flags,
    read_numbers,
)


@pytest.mark.parametrize(
    "text",
    [
        "1,2,3,4\n5,6,7,8\n",
        "1\t2\t3\t4\r\n5\t6\t7\t8",
        " 1.0, 2.0, 3.0, 4.0\r\n 5.00,6,7,8\n\n",
        "1 2 3 4\n5,6\t7;8\n",
        "1e0,2,3,4\n\n5,6,7,8\n",
    ],
)
def test_delimiters_and_line_ends_do_not_matter(tmp_path, text):
    (tmp_path / "a.txt").write_bytes(text.encode())
    assert read_boxes(tmp_path / "a.txt").tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_nan_is_kept(tmp_path):
    (tmp_path / "a.txt").write_text("1,2,3,4\nNaN,NaN,NaN,NaN\n")
    assert np.isnan(read_boxes(tmp_path / "a.txt")[1]).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3,4\n1,2,3\n", r"a\.txt, line 2: expected four numbers x, y, w, h, got 3"),
        ("1,2,3,4\nx,y,w,h\n", r"a\.txt, line 2: expected x, y, w, h in pixels, got 'x,y,w,h'"),
        ("", r"a\.txt: the file is empty"),
        ("\n\n", r"a\.txt: the file is empty"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(tmp_path, text, message):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ResultError, match=message):
        read_boxes(tmp_path / "a.txt")


def test_a_image_in_place_of_text_and_a_missing_file_are_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ResultError, match="not a text file"):
        read_boxes(tmp_path / "a.txt")
    with pytest.raises(ResultError, match="no such file"):
        read_boxes(tmp_path / "b.txt")


def test_written_boxes_are_read_back_exactly(tmp_path):
    boxes = np.random.default_rng(0).uniform(-9, 999, (40, 4)) / 7
    (tmp_path / "a.txt").write_text(format_boxes(boxes))
    assert np.array_equal(read_boxes(tmp_path / "a.txt"), boxes)
    assert format_boxes(np.array([[1.25, 2, 3, 4]]), 3) == "1.250,2.000,3.000,4.000\n"


def test_flags_must_be_one_per_frame(tmp_path):
    (tmp_path / "a.txt").write_text("0,1,0")
    assert read_flags(tmp_path / "a.txt", 3).tolist() == [False, True, False]
    with pytest.raises(ResultError, match="expected 4 flags, one per frame, got 3"):
        read_flags(tmp_path / "a.txt", 4)


def test_words_among_numbers_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("0 one 2")
    with pytest.raises(ResultError, match="expected numbers only"):
        read_numbers(tmp_path / "a.txt")


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("mark", [b",", b";", b"\t", b" "])
def test_results_are_read_by_the_rules_of_annotations(tmp_path, bom, mark):
    rows = [b"8,9,10,11", b"1.5,-2,3e1,4"]
    (tmp_path / "a.txt").write_bytes(bom + b"\r\n".join(row.replace(b",", mark) for row in rows))
    assert read_boxes(tmp_path / "a.txt").tolist() == [[8, 9, 10, 11], [1.5, -2, 30, 4]]


@pytest.mark.parametrize("word", ["7_0", "\uff11\uff12", "0x10"])
def test_what_only_looks_like_a_number_is_refused(tmp_path, word):
    (tmp_path / "a.txt").write_text(f"1,2,3,4\n{word},2,3,4\n", encoding="utf-8")
    with pytest.raises(ResultError, match="line 2: expected x, y, w, h"):
        read_boxes(tmp_path / "a.txt")

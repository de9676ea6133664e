"""Numbers of other people's files, and measures: what holds for every input that can occur."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dytrack_platform.datasets.io.text import number, parse_rows
from dytrack_platform.errors import ResultError
from dytrack_platform.evaluation.scoring.metrics import (
    centre_errors,
    columns,
    normalised_errors,
    overlaps,
)
from dytrack_platform.evaluation.scoring.result_files import format_boxes, parse_boxes

finite = st.floats(-1e6, 1e6)
tables = arrays.arrays(np.float64, st.tuples(st.integers(1, 12), st.just(4)), elements=finite)
# Pixels as annotators write them: whole, and with an area.
pixels = st.integers(-500, 500).map(float)
sides = st.integers(1, 400).map(float)
drawn = st.lists(st.tuples(pixels, pixels, sides, sides), min_size=1, max_size=8)
PATH = Path("a.txt")


@given(tables)
def test_boxes_are_read_back_bit_for_bit(table):
    np.testing.assert_array_equal(parse_boxes(PATH, format_boxes(table)), table)
    np.testing.assert_array_equal(parse_rows(format_boxes(table)).values, table)


@given(tables, st.sampled_from([",", "\t", " ", ";", ", ", " , "]), st.sampled_from(["\n", "\r\n"]))
def test_every_delimiter_gives_the_same_numbers(table, delimiter, end):
    text = end.join(delimiter.join(map(repr, row)) for row in table.tolist())
    np.testing.assert_array_equal(parse_boxes(PATH, text), table)
    np.testing.assert_array_equal(parse_rows(text).values, table)


@given(st.text(max_size=40))
def test_text_is_numbers_or_is_refused_with_its_line(text):
    try:
        said, columns_read = "", parse_boxes(PATH, text).shape[1]
    except ResultError as error:
        said, columns_read = str(error), 0
    assert said.startswith("a.txt") or columns_read == 4


@given(st.text(max_size=12))
def test_a_number_is_what_python_reads_and_not_everything_it_reads(field):
    try:
        found = number(field)
    except ValueError:
        return
    assert found == pytest.approx(float(field), nan_ok=True)
    assert "_" not in field


@given(drawn, drawn, st.sampled_from(["plain", "inclusive", "guarded"]))
def test_overlap_is_symmetric_bounded_and_one_for_itself(one, other, edges):
    count = min(len(one), len(other))
    a, b = columns(np.array(one[:count])), columns(np.array(other[:count]))
    there, back = overlaps(a, b, edges), overlaps(b, a, edges)
    np.testing.assert_allclose(there, back, atol=1e-12)
    assert (there >= 0).all()
    assert (there <= 1 + 1e-12).all()
    np.testing.assert_allclose(overlaps(a, a, edges), 1.0, atol=1e-12)


@given(drawn, pixels, pixels)
def test_errors_do_not_depend_on_where_the_frame_begins(boxes, dx, dy):
    a = np.array(boxes)
    b = a + np.array([3.0, -2.0, 1.0, 2.0])
    moved = np.array([dx, dy, 0.0, 0.0])
    for measure in (centre_errors, lambda one, two: normalised_errors(one, two, "quotients")):
        here = measure(columns(b), columns(a))
        there = measure(columns(b + moved), columns(a + moved))
        np.testing.assert_allclose(here, there, atol=1e-9)
        assert (measure(columns(a), columns(a)) == 0).all()


@given(drawn)
def test_measures_leave_their_boxes_alone(boxes):
    a = columns(np.array(boxes))
    kept = [part.copy() for part in a]
    overlaps(a, a)
    centre_errors(a, a)
    for part, before in zip(a, kept, strict=True):
        np.testing.assert_array_equal(part, before)

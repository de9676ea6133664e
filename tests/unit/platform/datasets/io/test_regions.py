"""VOT's regions that are none."""

import pytest

from dytrack_platform.datasets.io.regions import Special, parse_region


@pytest.mark.parametrize(
    "line", ["inf", "-inf", "nan", "1.5", "1_0", "", "m1,2", "1,2", "m1,1,-1,1"]
)
def test_a_line_that_is_no_region_is_refused(line):
    with pytest.raises(ValueError, match=r"expected|window"):
        parse_region(line)


def test_a_code_is_a_whole_number():
    assert parse_region("2.0000") == Special(2)

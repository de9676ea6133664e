import json
import re

import numpy as np
import pytest

from dytrack_platform.errors import ResultError
from dytrack_platform.evaluation.report.comparison import compare, interval, write_comparison
from dytrack_platform.evaluation.scoring.dataset_scores import summarise
from dytrack_platform.evaluation.scoring.ground_truth import Annotation, Prepared
from dytrack_platform.evaluation.scoring.profiles import profile
from dytrack_platform.evaluation.scoring.sequence_scores import measure


def tracker(rules, noise, names=("a", "b", "c", "d", "e", "f"), seed=0):
    rng = np.random.default_rng(seed)
    scores = []
    for name in names:
        boxes = np.tile([50.0, 60.0, 30.0, 40.0], (40, 1))
        prepared = Prepared(profile(rules), Annotation(name=name, boxes_xywh=boxes))
        scores += measure(prepared, [(boxes + rng.normal(0, noise, boxes.shape)).clip(1)])
    attributes = {a: list(names[:3]) for a in ("FM", "OV", "BC")}
    return summarise(profile(rules), scores, attributes=attributes)


def test_the_interval_of_a_mean_is_about_two_standard_errors_wide():
    rows = np.random.default_rng(0).normal(5, 1, 400)
    found = interval(rows)
    assert found.value == pytest.approx(rows.mean())
    assert found.high - found.low == pytest.approx(4 * 1.96 / 2 / 20, rel=0.15)
    assert found.decided


def test_equal_trackers_differ_by_nothing():
    found = interval(np.zeros(30))
    assert (found.low, found.high) == (0.0, 0.0)
    assert not found.decided


def test_the_same_seed_gives_the_same_interval():
    rows = np.random.default_rng(0).normal(0, 1, 50)
    assert interval(rows, seed=4) == interval(rows, seed=4) != interval(rows, seed=5)


@pytest.mark.parametrize("rules", ["lasot-matlab", "got10k"])
def test_a_better_tracker_is_found_better(rules):
    found = compare(profile(rules), {"ours": tracker(rules, 4), "theirs": tracker(rules, 9)})
    assert found.measure == ("AO" if rules == "got10k" else "success AUC")
    assert found.differences["theirs"].high < 0
    ours, theirs = (found.scores[name].value for name in ("ours", "theirs"))
    assert found.differences["theirs"].value == pytest.approx(theirs - ours)


def test_pairing_makes_the_interval_narrower_than_either_score():
    first, second = tracker("pysot-otb", 5), tracker("pysot-otb", 5, seed=1)
    found = compare(profile("pysot-otb"), {"a": first, "b": second})
    assert found.differences["b"].low < 0 < found.differences["b"].high


def test_a_comparison_needs_two_trackers_and_two_shared_sequences():
    only = tracker("pysot-otb", 5)
    with pytest.raises(ResultError, match="needs two trackers, got a"):
        compare(profile("pysot-otb"), {"a": only})
    other = tracker("pysot-otb", 5, names=("a", "z"))
    with pytest.raises(ResultError, match="share 1 sequences"):
        compare(profile("pysot-otb"), {"a": only, "b": other})


def test_the_page_holds_the_numbers(tmp_path):
    trackers = {"ours": tracker("lasot-matlab", 4), "theirs": tracker("lasot-matlab", 9)}
    found = compare(profile("lasot-matlab"), trackers)
    path = write_comparison(tmp_path / "page.html", found, trackers, ["theirs, a: cut"])
    page = path.read_text()
    embedded = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert json.loads(embedded.group(1)) == found.to_dict()
    assert "worse" in page
    assert "theirs, a: cut" in page

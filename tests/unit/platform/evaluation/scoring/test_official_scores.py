"""Every one-pass number that the official toolkits gave on the reference boxes."""

import json
from pathlib import Path

import numpy as np
import pytest

from dytrack_platform.evaluation.scoring.annotations import read_annotations
from dytrack_platform.evaluation.scoring.dataset_scores import sequence_scores
from dytrack_platform.evaluation.scoring.profiles import profile
from dytrack_platform.evaluation.scoring.scoreboard import find_trackers, score_results

EXACT = 1e-9
FLOAT32 = 1e-6  # pytracking and its fork keep their curves in single precision

# Toolkit's key in expected.json, our profile, tolerance.
LASOT = (
    ("matlab", "lasot-matlab", EXACT),
    ("pysot", "pysot-lasot", EXACT),
    ("pytracking", "pytracking-lasot", FLOAT32),
)
OTB = (
    ("lasot_matlab_code_absent0 (= OTB calcSeqErrRobust logic)", "lasot-matlab", EXACT),
    ("pysot", "pysot-otb", EXACT),
    ("pytracking", "pytracking-otb", FLOAT32),
    ("ostrack", "ostrack-otb", FLOAT32),
    ("got10k_0.1.3", "got10k-otb", EXACT),
    ("published_performance_json", "got10k-otb", EXACT),
)
UAV = (
    ("matlab_otb_logic", "lasot-matlab", EXACT),
    ("pysot", "pysot-otb", EXACT),
    ("pytracking_uav", "pytracking-uav", FLOAT32),
    ("ostrack_uav", "ostrack-uav", FLOAT32),
    ("got10k_0.1.3_ExperimentUAV123", "got10k-uav123", EXACT),
)
NAMES = {
    "success_auc": "success_auc",
    "success_score": "success_auc",
    "precision20": "precision20",
    "precision_score": "precision20",
    "norm_precision20": "norm_precision20",
    "success_rate": "success_rate",
    "avg_overlap": "mean_overlap",
    "success_curve": "success_curve",
    "precision_curve": "precision_curve",
    "norm_precision_curve": "norm_precision_curve",
}


COUNTS = {"n", "n_sequences"}
PARTS = {"per_seq", "attributes", "speed_fps", "excluded", "n_thresholds"}
AUTHORS = "published_performance_json"
PUBLISHED = {"published_280", "published"}  # over sequences that are not all here


def compare(scores, expected, tolerance, where):
    """Compare every number of a row; a key that is not known fails."""
    assert set(expected) <= {*NAMES, *COUNTS, *PARTS}, where
    for key, value in expected.items():
        if key in NAMES:
            found = getattr(scores, NAMES[key])
            assert np.allclose(found, value, rtol=0, atol=tolerance), (where, key, found, value)
        elif key in COUNTS:
            assert scores.sequences == value, (where, key)
        elif key == "n_thresholds":
            assert len(scores.success_curve) == value


def compare_all(score, official, tolerance, where):
    """Compare overall scores, curves, sequences, attributes and speed."""
    compare(score.overall, official, tolerance, where)
    if official.get("speed_fps", -1) > 0:
        assert score.fps == pytest.approx(official["speed_fps"], abs=EXACT)
    for sequence, row in official.get("per_seq", {}).items():
        own = sequence_scores(score.sequences[sequence])
        compare(own, row, tolerance, (*where, sequence))
        if row.get("speed_fps", -1) > 0:
            assert score.sequence_fps[sequence] == pytest.approx(row["speed_fps"], abs=EXACT)
    for attribute, row in official.get("attributes", {}).items():
        compare(score.attributes[attribute], row, tolerance, (*where, attribute))


def check(folder: Path, rows, *, absent: bool) -> int:
    """Compare every toolkit's numbers of every tracker; count the pairs."""
    expected = json.loads((folder / "expected.json").read_text())
    trackers = {t.name: t for t in find_trackers(folder / "results")}
    seen = 0
    for tracker, toolkits in expected["trackers"].items():
        known = {**toolkits, **toolkits.get("subset24", {})}
        assert set(known) - PUBLISHED - {"subset24"} <= {key for key, *_ in rows}
        for key, name, tolerance in rows:
            if key not in known:
                continue
            official = known[key]
            annotations = read_annotations(
                folder / "groundtruth",
                absent=folder / "absent" if absent else None,
                attributes=folder / "attributes",
                exclude=("Tiger1",) if key == AUTHORS else official.get("excluded", ()),
            )
            board = score_results(profile(name), annotations, [trackers[tracker]])
            assert not board.errors
            if key == AUTHORS:
                official = without_tiger(official)
            compare_all(board.trackers[tracker], official, tolerance, (name, tracker))
            seen += 1
    return seen


def without_tiger(published):
    """Leave out what the authors computed on another Tiger1, which omits five frames."""
    rows = {name: row for name, row in published["per_seq"].items() if name != "Tiger1"}
    assert len(rows) >= 98
    return {"per_seq": rows}


def test_lasot_equals_matlab_pysot_and_pytracking(shared):
    assert check(shared / "evaluation" / "lasot", LASOT, absent=True) == 6


@pytest.mark.slow
def test_otb100_equals_five_toolkits(shared):
    assert check(shared / "evaluation" / "otb100", OTB, absent=False) == 17


def test_uav123_with_nan_equals_five_toolkits(shared):
    assert check(shared / "evaluation" / "uav123", UAV, absent=False) == 10


@pytest.mark.parametrize("tracker", ["synthDet", "synthStoch"])
def test_got10k_equals_its_toolkit(shared, tracker):
    folder = shared / "evaluation" / "got10k_synthetic"
    expected = json.loads((folder / "expected.json").read_text())["trackers"][tracker]
    trackers = [t for t in find_trackers(folder / "results" / "GOT-10k") if t.name == tracker]
    annotations = read_annotations(folder / "val")
    lengths = {annotation.name: len(annotation.boxes_xywh) for annotation in annotations}
    board = score_results(profile("got10k"), annotations, trackers)
    score, official = board.trackers[tracker], expected["toolkit"]
    assert score.ao == pytest.approx(official["ao"], abs=EXACT)
    assert score.sr50 == pytest.approx(official["sr50"], abs=EXACT)
    assert score.sr75 == pytest.approx(official["sr75 (= succ_curve[75])"], abs=EXACT)
    assert score.fps == pytest.approx(official["speed_fps"], abs=EXACT)
    derived = expected["derived"]
    assert score.mao == pytest.approx(derived["mAO_by_object_class"], abs=EXACT)
    assert score.class_ao == pytest.approx(derived["per_class_ao"], abs=EXACT)
    every = [own.mean_overlap for own in score.sequences.values()]
    assert np.nanmean(every) == pytest.approx(derived["ao_mean_over_sequences"], abs=EXACT)
    curve = score.overall.success_curve
    assert np.allclose(curve, official["succ_curve_101"], rtol=0, atol=EXACT)
    for name, row in official["seq_wise"].items():
        own = score.sequences[name]
        assert own.mean_overlap == pytest.approx(row["ao"], abs=EXACT)
        assert own.success_rate == pytest.approx(row["sr"], abs=EXACT)
        assert lengths[name] == row["length"] + 1  # it counts without the first frame


def test_trackingnet_equals_its_devkit(shared):
    folder = shared / "evaluation" / "trackingnet_dummy"
    official = json.loads((folder / "expected.json").read_text())
    trackers = find_trackers(folder / "subm")
    board = score_results(profile("trackingnet"), read_annotations(folder / "GT"), trackers)
    score = board.trackers["subm"]
    assert 100 * score.overall.success_auc == pytest.approx(official["success"], abs=EXACT)
    assert 100 * score.overall.precision20 == pytest.approx(official["precision"], abs=EXACT)
    norm = score.overall.norm_precision20
    assert 100 * norm == pytest.approx(official["norm_precision"], abs=EXACT)
    assert 100 * score.coverage == pytest.approx(official["coverage"], abs=EXACT)
    assert any("scored as all-zero boxes" in line for line in board.unusual)

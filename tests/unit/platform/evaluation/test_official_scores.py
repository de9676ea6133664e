"""Every one-pass number that the official toolkits gave on the reference boxes."""

import json
from pathlib import Path

import numpy as np
import pytest

from dytrack_platform.evaluation.annotations import read_annotations
from dytrack_platform.evaluation.averages import sequence_scores
from dytrack_platform.evaluation.profiles import profile
from dytrack_platform.evaluation.scoreboard import find_trackers, score_results

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


def compare(scores, expected, tolerance, where):
    for key, value in expected.items():
        if key in NAMES:
            found = getattr(scores, NAMES[key])
            assert np.allclose(found, value, rtol=0, atol=tolerance), (where, key, found, value)


def check(folder: Path, rows, *, absent: bool) -> int:
    """Compare overall scores, curves, sequences, attributes and speed; count the trackers."""
    expected = json.loads((folder / "expected.json").read_text())
    trackers = {t.name: t for t in find_trackers(folder / "results")}
    seen = 0
    for key, name, tolerance in rows:
        for tracker, toolkits in expected["trackers"].items():
            official = toolkits.get("subset24", toolkits)[key]
            annotations = read_annotations(
                folder / "groundtruth",
                absent=folder / "absent" if absent else None,
                attributes=folder / "attributes",
                exclude=official.get("excluded", []),
            )
            board = score_results(profile(name), annotations, [trackers[tracker]])
            assert not board.errors
            score = board.trackers[tracker]
            compare(score.overall, official, tolerance, (name, tracker))
            for sequence, row in official.get("per_seq", {}).items():
                own = sequence_scores(score.sequences[sequence])
                compare(own, row, tolerance, (name, tracker, sequence))
            for attribute, row in official.get("attributes", {}).items():
                own = score.attributes[attribute]
                assert own.sequences == row["n"]
                compare(own, row, tolerance, (name, tracker, attribute))
            if official.get("speed_fps", -1) > 0:
                assert score.fps == pytest.approx(official["speed_fps"], abs=EXACT)
            seen += 1
    return seen


def test_lasot_equals_matlab_pysot_and_pytracking(shared):
    assert check(shared / "evaluation" / "lasot", LASOT, absent=True) == 6


def test_otb100_equals_five_toolkits(shared):
    assert check(shared / "evaluation" / "otb100", OTB, absent=False) == 15


def test_uav123_with_nan_equals_five_toolkits(shared):
    assert check(shared / "evaluation" / "uav123", UAV, absent=False) == 10


@pytest.mark.parametrize("tracker", ["synthDet", "synthStoch"])
def test_got10k_equals_its_toolkit(shared, tracker):
    folder = shared / "evaluation" / "got10k_synthetic"
    expected = json.loads((folder / "expected.json").read_text())["trackers"][tracker]
    trackers = [t for t in find_trackers(folder / "results" / "GOT-10k") if t.name == tracker]
    board = score_results(profile("got10k"), read_annotations(folder / "val"), trackers)
    score, official = board.trackers[tracker], expected["toolkit"]
    assert score.ao == pytest.approx(official["ao"], abs=EXACT)
    assert score.sr50 == pytest.approx(official["sr50"], abs=EXACT)
    assert score.sr75 == pytest.approx(official["sr75 (= succ_curve[75])"], abs=EXACT)
    assert score.fps == pytest.approx(official["speed_fps"], abs=EXACT)
    assert score.mao == pytest.approx(expected["derived"]["mAO_by_object_class"], abs=EXACT)
    curve = score.overall.success_curve
    assert np.allclose(curve, official["succ_curve_101"], rtol=0, atol=EXACT)
    for name, row in official["seq_wise"].items():
        own = score.sequences[name]
        assert own.mean_overlap == pytest.approx(row["ao"], abs=EXACT)
        assert own.success_rate == pytest.approx(row["sr"], abs=EXACT)


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

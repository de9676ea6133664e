"""VOT: regions, measures and whole protocols against vot-toolkit 0.7.4 and pysot's region.c."""

import json
import math
import struct

import numpy as np
import pytest

from dytrack_platform.datasets.io.regions import (
    FAILURE,
    INITIALISATION,
    Polygon,
    Rectangle,
    Special,
    parse_region,
)
from dytrack_platform.errors import ConfigurationError, ResultError
from dytrack_platform.evaluation.vot.binary import read_binary
from dytrack_platform.evaluation.vot.files import (
    read_repetitions,
    read_sequences,
    unusual_results,
)
from dytrack_platform.evaluation.vot.measures import (
    Fragment,
    codes,
    eao_curve,
    longterm_curves,
    longterm_thresholds,
    multistart_partial,
    multistart_progress,
    pysot_eao_curve,
    supervised_accuracy,
)
from dytrack_platform.evaluation.vot.protocols import VOT_PROFILES, score_vot
from dytrack_platform.evaluation.vot.regions import is_empty, overlap, polygon_overlap

TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def official(shared):
    return json.loads((shared / "evaluation" / "adversarial" / "vot_expected.json").read_text())


@pytest.fixture(scope="module")
def tiny(shared):
    folder = shared / "evaluation" / "vot_tiny"
    return folder, json.loads((folder / "expected_vot_toolkit_0.7.4.json").read_text())["results"]


def overlaps_of(case):
    regions = [parse_region(line) for line in case["trajectory"]]
    truth = [parse_region(line) for line in case["groundtruth"]]
    return regions, np.array([overlap(a, b) for a, b in zip(regions, truth, strict=True)])


def test_overlaps_equal_the_toolkits_on_every_pair(official):
    for name, case in official["overlap"].items():
        bounds = tuple(case["bounds"]) if case["bounds"] else None
        found = overlap(parse_region(case["first"]), parse_region(case["second"]), bounds)
        assert found == pytest.approx(case["overlap"], abs=1e-9), name


def test_overlaps_equal_pysots_on_every_pair(official):
    for name, case in official["overlap"].items():
        bounds = tuple(case["bounds"]) if case["bounds"] else None
        regions = parse_region(case["first"]), parse_region(case["second"])
        expected = case["pysot_region_c"]
        if isinstance(expected, dict):
            with pytest.raises(ResultError, match="cannot read masks"):
                polygon_overlap(*regions, bounds)
            continue
        found = polygon_overlap(*regions, bounds)
        assert found == pytest.approx(float(expected), abs=TOLERANCE, nan_ok=True), name


@pytest.mark.parametrize("case", ["supervised_eao_curve", "supervised_eao_curve_all_fail"])
def test_supervised_eao_curve_equals_the_toolkits(official, case):
    runs = zip(official[case]["overlaps"], official[case]["success"], strict=True)
    found = eao_curve([Fragment(np.array(o, dtype=float), failed=not s) for o, s in runs])
    assert np.allclose(found, official[case]["curve"], rtol=0, atol=TOLERANCE)


def test_multistart_partial_curve_equals_the_toolkits(official):
    case = official["multistart_eao_partial"]
    runs = zip(case["overlaps"], case["success"], strict=True)
    cut = [Fragment(np.array(o, dtype=float), failed=not s) for o, s in runs]
    phi, active = multistart_partial(cut, case["curve_length"])
    assert np.allclose(phi, case["phi"], rtol=0, atol=1e-9)
    assert active.tolist() == case["active"]


@pytest.mark.parametrize("burn_in", [10, 1, 3])
def test_accuracy_leaves_out_the_frames_after_a_start(official, burn_in):
    case = official[f"supervised_accuracy_burnin_{burn_in}"]
    regions, values = overlaps_of(case)
    accuracy, frames = supervised_accuracy(regions, values, burn_in=burn_in)
    assert accuracy == pytest.approx(case["accuracy"], abs=1e-9)
    assert frames == case["frames"]


def test_failures_and_starts_are_where_the_toolkit_finds_them(official):
    case = official["supervised_failures"]
    failures, starts = case["fail_inits"]
    regions = [
        parse_region(line) for line in official["supervised_accuracy_burnin_10"]["trajectory"]
    ]
    assert codes(regions, FAILURE) == failures
    assert codes(regions, INITIALISATION) == starts
    assert len(failures) == case["count"]


def test_longterm_thresholds_equal_the_toolkits(official):
    small = official["lt_thresholds_small"]
    scores = [math.nan if score is None else score for score in small["scores"]]
    assert longterm_thresholds(scores).tolist() == [float(t) for t in small["thresholds"]]
    many = longterm_thresholds([k / 200 for k in range(200)])
    expected = [float(t) for t in official["lt_thresholds_200"]["thresholds"]]
    assert np.array_equal(many, expected)


def test_longterm_curves_equal_the_toolkits(official):
    case = official["lt_precision_recall"]
    _, values = overlaps_of(case)
    thresholds = np.array([float(t) for t in case["thresholds"]])
    precision, recall = longterm_curves(values, np.array(case["confidence"]), 5, thresholds)
    assert np.allclose(precision, case["precision"], rtol=0, atol=1e-9)
    assert np.allclose(recall, case["recall"], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("place", "tracker"), [(0, "StaticExec"), (1, "Drift")])
def test_protocols_equal_the_toolkits_reports(tiny, place, tracker):
    folder, official = tiny
    sequences = read_sequences(folder)

    def scored(name):
        rules = VOT_PROFILES[name]
        return score_vot(rules, sequences, folder / "results" / tracker, eao_range=(5, 30))

    ar, eao, curve = (official["baseline"]["results"][k][place] for k in range(3))
    found = scored("vot-supervised")
    assert found["accuracy"] == pytest.approx(ar[0], abs=TOLERANCE)
    assert found["robustness"] == pytest.approx(ar[1], abs=TOLERANCE)
    assert found["ar_robustness"] == pytest.approx(ar[2][0], abs=TOLERANCE)
    assert ar[2][1] == pytest.approx(found["accuracy"], abs=TOLERANCE)
    assert found["eao"] == pytest.approx(eao[0], abs=TOLERANCE)
    assert np.allclose(found["eao_curve"], curve[0], rtol=0, atol=TOLERANCE)
    eao, ar = (official["multistart"]["results"][k][place] for k in range(2))
    found = scored("vot-multistart")
    assert found["eao"] == pytest.approx(eao[0], abs=TOLERANCE)
    assert found["accuracy"] == pytest.approx(ar[0], abs=TOLERANCE)
    assert found["robustness"] == pytest.approx(ar[1], abs=TOLERANCE)
    assert [ar[2][0], ar[2][1]] == pytest.approx([found["robustness"], found["accuracy"]])
    assert sum(row["progress"] for row in found["sequences"].values()) == ar[3]
    accuracy, curve, f_curve, prf = (
        official["unsupervised"]["results"][k][place] for k in range(4)
    )
    found = scored("vot-longterm")
    assert [found[k] for k in ("precision", "recall", "f")] == pytest.approx(prf, abs=TOLERANCE)
    both = np.column_stack([found["recall_curve"], found["precision_curve"]])
    assert np.allclose(both, curve[0], rtol=0, atol=TOLERANCE)
    assert found["accuracy"] == pytest.approx(accuracy[0], abs=TOLERANCE)
    total = np.maximum(both.sum(axis=1), 1e-300)
    assert np.allclose(2 * both.prod(axis=1) / total, f_curve[0], rtol=0, atol=TOLERANCE)
    assert f_curve[1] == pytest.approx(both[1].tolist(), abs=TOLERANCE)  # what it says beside
    thresholds = [float(t) for t in curve[1]]
    assert [float(t) for t in found["thresholds"]] == pytest.approx(thresholds, abs=TOLERANCE)


def test_pysots_score_differs_from_the_toolkits_on_the_same_files(tiny):
    folder, _ = tiny
    sequences = read_sequences(folder)
    drift = folder / "results" / "Drift"
    ours = score_vot(VOT_PROFILES["vot-supervised"], sequences, drift, eao_range=(5, 30))
    pysot = score_vot(VOT_PROFILES["vot-supervised-pysot"], sequences, drift, eao_range=(5, 30))
    assert 0 < abs(ours["eao"] - pysot["eao"]) < 0.05


def test_pysots_curve_equals_a_hand_count():
    start, fail, gap, box = Special(1), Special(2), Special(0), Rectangle(0, 0, 9, 9)
    regions = [start, box, fail, gap, gap, gap, gap, start, box, box]
    values = np.array([np.nan, 0.8, np.nan, *[np.nan] * 5, 0.6, 0.4])
    curve = pysot_eao_curve([(regions, values)], weight=1.0)
    # To frame 7 and padded with zeros: .8 0 0 ...; from frame 7 to the end: .6 .4.
    assert curve[:3] == pytest.approx([1.0, (0.8 + 0.6) / 2, (0.4 + 0.5) / 2])
    assert curve[3] == pytest.approx(0.8 / 3)


def test_ten_low_frames_in_a_row_end_a_multistart_run():
    truth = [Rectangle(0, 0, 5, 5)] * 30
    values = np.full(30, 0.5)
    values[5:14] = 0.1
    assert multistart_progress(values, truth) == 30
    values[14] = 0.05
    assert multistart_progress(values, truth) == 5
    assert multistart_progress(values, [*truth[:8], Special(0), *truth[9:]]) == 30


def test_regions_are_read_by_their_number_of_values():
    assert parse_region("1") == Special(1)
    assert parse_region("1,2,3,4") == Rectangle(1, 2, 3, 4)
    assert isinstance(parse_region("0,0,5,0,5,5"), Polygon)
    assert is_empty(parse_region("nan,nan,nan,nan"))
    assert parse_region("m2,3,2,2,1,2,1").pixels.tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize("line", ["", "1,2,3", "a,b,c,d", "1,2,3,4,5"])
def test_a_line_that_is_no_region_is_refused(line):
    with pytest.raises(ValueError, match="expected"):
        parse_region(line)


def write_vot(folder, frames=3, results=3):
    (folder / "list.txt").write_text("one\n")
    sequence, result = folder / "one", folder / "results" / "T" / "baseline" / "one"
    for path in (sequence, result):
        path.mkdir(parents=True)
    (sequence / "groundtruth.txt").write_text("1,1,5,5\n" * frames)
    (result / "one_001.txt").write_text("1\n" + "1,1,5,5\n" * (results - 1))
    return read_sequences(folder)


def test_a_result_of_another_length_is_refused_by_name(tmp_path):
    sequences = write_vot(tmp_path, results=2)
    with pytest.raises(ResultError, match=r"one_001\.txt: 2 results for 3 frames"):
        read_repetitions(tmp_path / "results" / "T" / "baseline", sequences[0])


def test_binary_results_are_read_as_the_same_regions(tmp_path):
    path = tmp_path / "one_001.bin"
    path.write_bytes(
        struct.pack("<hI", 1, 4)
        + struct.pack("<BI", 0, 1)
        + struct.pack("<B4f", 1, 1.5, 2, 3, 4)
        + struct.pack("<BH6f", 2, 3, 0, 0, 5, 0, 5, 5)
        + struct.pack("<BhhHHH3H", 3, 2, 3, 2, 2, 3, 1, 2, 1)
    )
    start, box, polygon, mask = read_binary(path)
    assert (start, box) == (Special(1), Rectangle(1.5, 2, 3, 4))
    assert polygon.corners.tolist() == [[0, 0], [5, 0], [5, 5]]
    assert mask.pixels.tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (struct.pack("<hI", 1, 9), "damaged or not a VOT result"),
        (struct.pack("<hI", 7, 0), "version 7 of VOT's binary results is not known"),
        (struct.pack("<hIB", 1, 1, 9), "no region has kind 9"),
        (b"", "damaged or not a VOT result"),
    ],
)
def test_a_damaged_binary_result_is_refused(tmp_path, data, message):
    (tmp_path / "x.bin").write_bytes(data)
    with pytest.raises(ResultError, match=message):
        read_binary(tmp_path / "x.bin")


def test_extra_sequences_and_broken_regions_are_told(tmp_path):
    sequences = write_vot(tmp_path)
    experiment = tmp_path / "results" / "T" / "baseline"
    (experiment / "two").mkdir()
    (experiment / "one" / "one_001.txt").write_text("1\nnan,nan,nan,nan\n1,1,-5,5\n")
    assert unusual_results(experiment, sequences) == [
        "not of this benchmark and not scored: two",
        "one: one_001.txt has 2 regions with NaN or a negative size, first in frame 2: "
        "they overlap nothing",
    ]


def test_a_missing_experiment_and_a_falling_range_are_refused(tmp_path):
    sequences = write_vot(tmp_path)
    tracker = tmp_path / "results" / "T"
    with pytest.raises(ResultError, match="has no results of longterm or unsupervised"):
        score_vot(VOT_PROFILES["vot-longterm"], sequences, tracker)
    with pytest.raises(ConfigurationError, match="eao: expected a rising range"):
        score_vot(VOT_PROFILES["vot-supervised"], sequences, tracker, eao_range=(9, 2))


def test_a_folder_without_a_list_is_refused(tmp_path):
    with pytest.raises(ResultError, match=r"no list\.txt"):
        read_sequences(tmp_path)

import numpy as np
import pytest

from dytrack_platform.confidence import auroc, calibrate


def test_a_perfect_ranking_has_an_area_of_one_and_a_reversed_one_of_zero():
    scores, found = np.array([0.1, 0.4, 0.6, 0.9]), np.array([False, False, True, True])
    assert auroc(scores, found) == 1.0
    assert auroc(-scores, found) == 0.0


def test_ties_count_half():
    assert auroc(np.full(6, 0.5), np.array([True, False] * 3)) == 0.5


def test_auroc_equals_a_count_of_pairs():
    rng = np.random.default_rng(0)
    scores, found = rng.integers(0, 10, 80) / 10, rng.random(80) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[found] for b in scores[~found]]
    assert auroc(scores, found) == pytest.approx(np.mean(pairs))


def test_one_class_alone_has_no_area():
    assert np.isnan(auroc(np.array([0.2, 0.3]), np.array([True, True])))


def test_expected_error_is_the_weighted_gap_of_the_bins():
    predicted = np.array([0.05, 0.05, 0.95, 0.95])
    true = np.array([0.25, 0.25, 0.95, 0.75])
    found = calibrate(predicted, true)
    assert found.expected_error == pytest.approx(0.5 * 0.2 + 0.5 * 0.1)
    assert found.counts.tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]


def test_frames_without_a_score_or_an_annotation_are_left_out():
    predicted = np.array([np.nan, 0.5, 0.5, 0.5])
    true = np.array([0.5, np.nan, -1.0, 0.5])
    assert calibrate(predicted, true).frames == 1


def test_nothing_to_calibrate_gives_nan_and_no_warning():
    found = calibrate(np.zeros(0), np.zeros(0))
    assert np.isnan(found.expected_error)
    assert np.isnan(found.auroc)

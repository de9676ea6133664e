import numpy as np
import pytest

from dytrack_platform.datasets.readers import READERS
from dytrack_platform.errors import ConfigurationError, ResultError
from dytrack_platform.evaluation.scoring.dataset_scores import average, sequence_scores, summarise
from dytrack_platform.evaluation.scoring.ground_truth import Annotation, Prepared
from dytrack_platform.evaluation.scoring.profiles import (
    DEFAULTS,
    PROFILES,
    default_profile,
    one_pass_default,
    profile,
)
from dytrack_platform.evaluation.scoring.sequence_scores import measure, merge
from dytrack_platform.evaluation.vot.protocols import VOT_PROFILES

OTB_STYLE = [name for name in PROFILES if name not in ("got10k", "trackingnet")]


def annotated(frames=30, seed=0, **more):
    rng = np.random.default_rng(seed)
    corner = np.cumsum(rng.normal(0, 3, (frames, 2)), axis=0) + 120
    # Whole pixels: with fractions a perfect box can overlap by 1 + 2e-16 in the inclusive way.
    boxes = np.column_stack([corner, rng.uniform(20, 40, (frames, 2))]).round()
    return Annotation(name="drift", boxes_xywh=boxes, image_size=(320, 240), **more)


def predicted(annotation, seed=1):
    return annotation.boxes_xywh + np.random.default_rng(seed).normal(
        0, 4, annotation.boxes_xywh.shape
    )


@pytest.mark.parametrize("name", OTB_STYLE)
def test_a_perfect_tracker_has_an_area_of_twenty_twentyfirsts(name):
    annotation = annotated()
    score = measure(Prepared(profile(name), annotation), [annotation.boxes_xywh])[0]
    assert sequence_scores(score).success_auc == pytest.approx(20 / 21)


@pytest.mark.parametrize("name", ["got10k", "trackingnet"])
def test_a_perfect_tracker_is_perfect_elsewhere(name):
    annotation = annotated()
    score = measure(Prepared(profile(name), annotation), [annotation.boxes_xywh])[0]
    found = sequence_scores(score)
    assert found.mean_overlap == pytest.approx(1.0) if name == "got10k" else True
    assert found.success_auc >= 100 / 101


@pytest.mark.parametrize("name", list(PROFILES))
def test_inputs_are_not_changed(name):
    annotation = annotated(absent=np.arange(30) % 7 == 3)
    result = predicted(annotation)
    before = annotation.boxes_xywh.copy(), result.copy(), annotation.absent.copy()
    measure(Prepared(profile(name), annotation), [result])
    assert np.array_equal(annotation.boxes_xywh, before[0])
    assert np.array_equal(result, before[1])
    assert np.array_equal(annotation.absent, before[2])


@pytest.mark.parametrize("name", list(PROFILES))
def test_several_results_at_once_equal_one_at_a_time(name):
    annotation = annotated(absent=np.arange(30) % 7 == 3)
    results = [predicted(annotation, seed) for seed in range(4)]
    prepared = Prepared(profile(name), annotation)
    together = measure(prepared, results)
    for score, result in zip(together, results, strict=True):
        alone = measure(prepared, [result])[0]
        assert np.array_equal(score.success, alone.success)
        assert np.array_equal(score.precision, alone.precision)
        assert score.overlap_sum == alone.overlap_sum


def test_repetitions_pool_their_frames():
    prepared = Prepared(profile("got10k"), annotated())
    parts = measure(prepared, [predicted(annotated(), seed) for seed in (1, 2)])
    pooled = merge(parts)
    assert pooled.frames == 58
    assert pooled.mean_overlap == pytest.approx(np.mean([p.mean_overlap for p in parts]))


def test_the_same_boxes_get_other_scores_from_other_profiles():
    annotation = annotated()
    annotation.boxes_xywh[10, 0] = 0.0  # a target that touches the border
    result = annotation.boxes_xywh + np.array([0.5, 0, 0, 0])
    areas = {
        name: sequence_scores(measure(Prepared(profile(name), annotation), [result])[0])
        for name in ("lasot-matlab", "ostrack-otb")
    }
    assert areas["lasot-matlab"].success_auc < areas["ostrack-otb"].success_auc


def test_notes_say_what_was_unusual():
    annotation = annotated()
    result = predicted(annotation)
    result[4] = np.nan
    result[7, 2] = 0
    score = measure(Prepared(profile("lasot-matlab"), annotation), [result])[0]
    assert score.notes == (
        "1 results have NaN, first in frame 5",
        "1 results have no area, first in frame 8",
    )


def test_a_refused_length_names_sequence_profile_and_remedy():
    annotation = annotated()
    with pytest.raises(ResultError) as caught:
        measure(Prepared(profile("pysot-otb"), annotation), [predicted(annotation)[:9]])
    assert str(caught.value) == (
        "drift: 9 results for 30 annotated frames, and the toolkit behind pysot-otb stops on "
        "that; mend the file or leave it out with --exclude drift"
    )


def test_matlab_leaves_a_row_of_zeros_out_of_the_mean():
    lost = annotated(absent=np.arange(30) == 0)
    far = lost.boxes_xywh + np.array([5000, 0, 0, 0])
    rules = profile("lasot-matlab")
    dead = measure(Prepared(rules, lost), [far])[0]
    good = measure(Prepared(rules, annotated()), [annotated().boxes_xywh])[0]
    assert average(rules, [dead, good]).success_auc == pytest.approx(20 / 21)
    pysot = profile("pysot-lasot")
    both = [
        measure(Prepared(pysot, lost), [far])[0],
        measure(Prepared(pysot, annotated()), [annotated().boxes_xywh])[0],
    ]
    assert average(pysot, both).success_auc == pytest.approx(10 / 21)


def test_an_attribute_of_one_sequence_is_left_out_by_matlab_only():
    for name, expected in (("lasot-matlab", set()), ("pysot-lasot", {"FM"})):
        score = measure(Prepared(profile(name), annotated()), [predicted(annotated())])
        total = summarise(profile(name), score, attributes={"FM": ["drift"]})
        assert set(total.attributes) == expected


def test_scores_lie_between_zero_and_one():
    for name, rules in PROFILES.items():
        annotation = annotated()
        found = measure(Prepared(rules, annotation), [predicted(annotation)])
        plain = summarise(rules, found).to_dict()
        for key in ("success_auc", "precision20", "norm_precision20"):
            assert plain[key] is None or 0 <= plain[key] <= 1, (name, key)


def test_every_default_is_a_profile_and_has_a_reason():
    for dataset in (*DEFAULTS, "video"):
        default = default_profile(dataset)
        assert default.profile in {*PROFILES, *VOT_PROFILES}
        assert default.reason


def test_every_benchmark_has_a_default_of_its_own_and_one_for_a_single_pass():
    assert set(READERS) - set(DEFAULTS) == {"coco", "video"}
    for dataset in READERS:
        single = one_pass_default(dataset)
        assert single.profile in PROFILES
        assert single.reason
    assert "vot-toolkit does, with dytrack trax" in one_pass_default("vot").reason


def test_an_unknown_profile_is_refused_with_the_known_ones():
    with pytest.raises(ConfigurationError, match="protocol: must be one of lasot-matlab, "):
        profile("lasot")

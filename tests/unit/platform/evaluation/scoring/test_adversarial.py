"""Hand-made cases that set the toolkits apart, with what each of them did on them."""

import json

import numpy as np
import pytest

from dytrack_platform.errors import ResultError
from dytrack_platform.evaluation.scoring.ground_truth import Annotation, Prepared
from dytrack_platform.evaluation.scoring.profiles import PROFILES, profile
from dytrack_platform.evaluation.scoring.sequence_scores import (
    curve_area,
    measure,
    norm_precision_score,
    precision_score,
)

RENAMED = {
    "got10k_got10k_val": "got10k",
    "got10k_master_lasot": "got10k-lasot",
    "trackingnet_devkit": "trackingnet",
}
LEFT_OUT = "pytracking_lasot_exclude_invalid"  # an option of the toolkit that gives up to 2.0


@pytest.fixture(scope="module")
def cases(shared):
    folder = shared / "evaluation" / "adversarial"
    expected = json.loads((folder / "expected.json").read_text())
    return json.loads((folder / "cases.json").read_text()), expected


def names(key: str) -> str:
    return RENAMED.get(key, key.replace("_", "-"))


def annotation(name, case, rules):
    # The cases' flags are LaSOT's; GOT-10k scores by cover, which is full in all of them.
    absent = None if rules == "got10k" else np.array(case["absent"], dtype=bool)
    return Annotation(
        name=name,
        boxes_xywh=np.array(case["gt"], dtype=float),
        absent=absent,
        image_size=tuple(case["image_size"]),
    )


def values(score):
    rules = score.profile
    found = {
        "success_curve": score.success_curve,
        "precision_curve": score.precision_curve,
        "norm_precision_curve": score.norm_precision_curve,
        "avg_overlap": score.mean_overlap,
        "succ_curve_101": score.success_curve,
        "ao": score.mean_overlap,
        "sr50": score.success_rate,
        "sr75_from_curve": score.success_curve[int(0.75 * (rules.success_thresholds - 1))],
    }
    if rules.name == "trackingnet":
        norm = norm_precision_score(rules, score.norm_precision_curve)
        area = curve_area(rules, score.success_curve, rules.overlap_thresholds)
        found["success"] = 100 * area
        found["precision"] = 100 * precision_score(rules, score.precision_curve)
        found["norm_precision"] = 100 * norm
        found["coverage"] = 100 * score.covered / score.frames
    return found


@pytest.mark.parametrize("rules", list(PROFILES))
def test_profile_does_what_its_toolkit_did(cases, rules):
    hand_made, expected = cases
    tolerance = 1e-6 if rules.startswith(("pytracking", "ostrack")) else 1e-9
    compared = 0
    for name, case in hand_made.items():
        official = {names(k): v for k, v in expected[name].items() if k != LEFT_OUT}[rules]
        predictions = np.array(case["pred"], dtype=float)
        if "error" in official:
            with pytest.raises(ResultError, match=name):
                measure(Prepared(profile(rules), annotation(name, case, rules)), [predictions])
            compared += 1
            continue
        prepared = Prepared(profile(rules), annotation(name, case, rules))
        found = values(measure(prepared, [predictions])[0])
        for key, value in official.items():
            value = np.array([np.nan if v is None else v for v in np.atleast_1d(value)])
            close = np.allclose(found[key], value, rtol=0, atol=tolerance, equal_nan=True)
            assert close, (name, key, found[key], value)
            compared += 1
    assert compared >= 21


def test_every_named_implementation_is_a_profile(cases):
    _, expected = cases
    implementations = {names(k) for case in expected.values() for k in case if k != LEFT_OUT}
    assert implementations == set(PROFILES)

"""Budgets, and thresholds that follow audits."""

from dataclasses import replace

import pytest

from dytrack_model.depth_value import FEATURES, ValueRule
from dytrack_model.policy import OperatingPoint
from dytrack_model.prediction import Audit
from dytrack_platform.serving.pacing import Audits, Paced

from .conftest import POINTS


def audit(agreement):
    return Audit(exit_index=0, predicted_iou=0.8, predicted_iou_deep=0.9, agreement=agreement)


def test_over_its_budget_a_target_gets_shallower_to_the_first_exit():
    paced = Paced(POINTS, 3, budget_ms=10.0)
    for _ in range(10):
        paced.observe(20.0)
    assert paced.name == "first exit"
    assert paced.leave(0, 0.0)


def test_the_cheapest_level_looks_narrowly_where_a_point_does():
    narrow = [replace(point, narrow=True) for point in POINTS]
    for points, expected in ((POINTS, False), (narrow, True)):
        paced = Paced(points, 3, budget_ms=10.0)
        for _ in range(10):
            paced.observe(20.0)
        assert paced.narrow == expected
        deep = Paced(points, 3, budget_ms=10.0)
        for _ in range(100):
            deep.observe(2.0)
        assert deep.name == "full"
        assert not deep.narrow


def test_well_within_its_budget_a_target_gets_deeper_but_does_not_swing():
    paced = Paced(POINTS, 3, budget_ms=10.0)
    for _ in range(100):
        paced.observe(2.0)
    assert paced.name == "full"
    assert not paced.leave(0, 0.99)
    changes = []
    for _ in range(400):  # full depth is over the budget, one level less is within it
        before = paced.level
        paced.observe(12.0 if paced.name == "full" else 2.0)
        changes.append(before != paced.level)
    assert sum(changes) < 14


def test_levels_go_from_cheap_to_dear_whatever_the_order_of_the_points():
    rule = ValueRule(weights=((0.0,) * FEATURES,) * 2, costs=(0.3, 0.6, 1.0), price=0.0)
    priced = [
        OperatingPoint(name=f"price {price}", value=replace(rule, price=price))
        for price in (0.1, float("inf"), 1.0)
    ]
    paced = Paced((*priced, *reversed(POINTS)), 3, budget_ms=10.0)
    names = [name for name, _ in paced._levels]
    prices = [name for name in names if name.startswith("price")]
    assert prices == ["price inf", "price 1.0", "price 0.1"]
    assert [n for n in names if n not in prices] == [
        "first exit",
        *(p.name for p in POINTS),
        "full",
    ]


def test_between_the_headroom_and_the_budget_nothing_changes():
    paced = Paced(POINTS, 3, budget_ms=10.0)
    before = paced.level
    for _ in range(50):
        paced.observe(9.0)
    assert paced.level == before


def test_a_fall_of_the_agreement_shows_as_drift_and_raises_thresholds():
    audits = Audits()
    for _ in range(60):
        audits.take(audit(0.95))
    assert audits.drift == pytest.approx(0.0, abs=1e-9)
    assert audits.raised == 0.0
    for _ in range(10):
        audits.take(audit(0.5))
    assert audits.drift > 0.2
    assert audits.raised > 0.1
    point = audits.corrected(OperatingPoint(name="p", thresholds=(0.0, 0.6, float("inf"))))
    assert point.thresholds[0] == 0.0
    assert point.thresholds[1] == pytest.approx(0.6 + audits.raised)
    assert point.thresholds[2] == float("inf")
    rule = ValueRule(weights=((0.0,) * FEATURES,), costs=(0.5, 1.0), price=1.0)
    priced = audits.corrected(OperatingPoint(name="v", value=rule))
    assert priced.value.price == pytest.approx(1.0 - audits.raised)

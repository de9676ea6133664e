"""The gate on cards that were made by hand."""

import pytest

from dytrack_platform.errors import ConfigurationError, ModelLookupError
from dytrack_platform.experiment.registry.card import Card, ExitRow, Machine, PointRow
from dytrack_platform.experiment.registry.gate import Gate, judge

MS = [2.0, 6.0]


def card(shift=0.0, *, data="d", sequences=8, shares=(0.5, 0.5), protocol="lasot", spread=0.0):
    scores = {
        f"s{k}": 0.4 + 0.02 * k + shift + (spread if k % 2 else -spread) for k in range(sequences)
    }
    point = PointRow(
        name="balanced",
        rule="",
        exit_share=shares,
        success_auc=0.5 + shift,
        milliseconds=4.0,
        gmacs=0.5,
        sequences=scores,
    )
    exits = tuple(
        ExitRow(depth=d, parameters=1, gmacs=g, milliseconds=m)
        for d, g, m in ((1, 0.2, 2), (2, 0.8, 6))
    )
    machine = Machine(processor="p", threads=1, runtime="torch", precision="fp32")
    return Card(
        machine=machine, exits=exits, points=(point,), dataset="x", protocol=protocol, data=data
    )


def refusal(gate, candidate, other, times=(MS, MS)):
    verdict = judge(gate, candidate, other, times)
    return " ".join(verdict.refusals)


def test_the_first_one_needs_an_evaluation_only():
    assert judge(Gate(), card(), None, (MS, [])).holds
    assert "no evaluation of point fast" in refusal(Gate(point="fast"), card(), None)


def test_a_worse_one_is_refused_and_one_within_the_margin_is_not():
    assert "differs by -0.0500" in refusal(Gate(), card(-0.05), card())
    assert judge(Gate(), card(-0.005), card(), (MS, MS)).holds
    assert judge(Gate(), card(0.05), card(), (MS, MS)).holds


def test_better_asks_for_an_interval_above_zero():
    assert "must be above 0" in refusal(Gate(better=True), card(0.0), card())
    assert judge(Gate(better=True), card(0.05), card(), (MS, MS)).holds
    wide = card(0.01, spread=0.2)
    assert "must be above 0" in refusal(Gate(better=True), wide, card())


@pytest.mark.parametrize(
    ("other", "what"),
    [({"data": "e"}, "data"), ({"protocol": "otb"}, "protocol"), ({"sequences": 7}, "sequences")],
)
def test_what_cannot_be_compared_is_refused(other, what):
    assert what in refusal(Gate(), card(), card(**other))


def test_costs_are_bounded_on_this_machine():
    assert "4.00 ms, 3 are allowed" in refusal(Gate(max_ms=3), card(), None)
    assert "0.5 GMACs, 0.4 are allowed" in refusal(Gate(max_gmacs=0.4), card(), None)
    slower = refusal(Gate(), card(), card(), ([4.0, 12.0], MS))
    assert "8.00 ms here, the version that has the alias 4.00" in slower
    assert judge(Gate(slower=None), card(), card(), ([4.0, 12.0], MS)).holds


def test_a_gate_that_cannot_be_is_refused():
    with pytest.raises(ConfigurationError, match="margin: must lie in"):
        Gate(margin=-1)
    with pytest.raises(ConfigurationError, match="max_ms: must not be negative"):
        Gate(max_ms=-1)


def test_a_card_is_read_as_it_was_written(tmp_path):
    made = card(0.1)
    made.write(tmp_path / "card.json")
    assert Card.read(tmp_path / "card.json") == made
    (tmp_path / "card.json").write_text("{")
    with pytest.raises(ModelLookupError, match="publish the tracker again"):
        Card.read(tmp_path / "card.json")

"""Members of a front: what others read, what is picked, and a page whose numbers agree."""

import json
import math
import re
from dataclasses import replace

import pytest
import yaml

from dytrack_model.policy import OperatingPoint
from dytrack_platform.config import load
from dytrack_platform.errors import ConfigurationError, ModelLookupError, StorageError
from dytrack_platform.experiment.search.front import members, page, picking
from dytrack_platform.experiment.search.front.members import Candidate, Front, member_of
from dytrack_platform.experiment.search.points import baselines
from dytrack_platform.experiment.search.points import threshold_front as solving
from dytrack_platform.experiment.search.points.latency import Latency
from dytrack_platform.experiment.search.points.rerun import Measured

REFERENCE = (0.0, 4.5)


@pytest.fixture
def front(cache, costs, recipe):
    search = recipe().search
    solved = solving.solve(cache, [(1, 4), (1, 2, 4), (4,)], costs, search, REFERENCE)
    values = [point.values for point in solved.points]
    chosen = [solved.points[k] for k in solving.spread(values, search.objectives, REFERENCE, 4)]
    candidates = [
        Candidate(point=p, depths=(1, 2, 3, 4), changes={}, weights="runs/x/tracker", trial=0)
        for p in chosen
    ]
    table = Latency(
        machine="here",
        model="m",
        runtime="torch",
        precision="fp32",
        threads=1,
        depths=(1, 2, 3, 4),
        milliseconds=(1.0, 2.0, 3.0, 4.0),
        heads=0.1,
    )
    found = members.named(candidates, search)
    return Front(
        mode="full",
        name="x",
        members=tuple(found),
        candidates=tuple(candidates),
        objectives=search.objectives,
        reference=REFERENCE,
        hypervolume=solved.hypervolume,
        latency=(table,),
        baselines=baselines.baselines(
            cache, {m.name: c.point for m, c in zip(found, candidates, strict=True)}, costs
        ),
        notes={"knee": found[1].name, "tried": 9, "sequences": 6, "undecided": {}},
    )


TRIAL = {
    "number": 0,
    "changes": {"model.exits": [1, 4], "train.head_lr": 0.001},
    "status": "finished",
    "reports": [
        {"epoch": 1, "hypervolume": 1.25, "losses": {}, "memory_megabytes": 300.0, "at": 2}
    ],
    "points": [],
    "reason": "",
    "seconds": {"all": 3.0},
    "began": 0.0,
}


def test_front_json_has_exactly_what_others_rely_on(front, recipe, tmp_path):
    files = members.write(front, recipe(), tmp_path)
    rows = json.loads((tmp_path / "front.json").read_text())
    keys = [
        "name",
        "exits",
        "policy",
        "changes",
        "iou",
        "ms",
        "gmacs",
        "closed_loop",
        "on_front",
        "weights",
    ]
    assert [list(row) for row in rows] == [keys] * len(rows)
    for row in rows:
        assert row["closed_loop"] is None
        point = OperatingPoint.from_dict(row["policy"])
        assert len(point.thresholds) == 3  # of the tracker in weights, which has four exits
        assert row["changes"]["model.exits"] == row["exits"]
        assert member_of(row).to_dict() == row
    recipes = [file for file in files if file.suffix == ".yaml"]
    assert len(recipes) == sum(row["on_front"] for row in rows) >= 3
    for file in recipes:
        config = load(file)
        row = next(row for row in rows if row["name"] == file.stem)
        assert list(config.model.exits) == row["exits"]
        assert config.name == f"x-{file.stem}"


def test_a_member_that_the_closed_loop_beats_leaves_the_front(front, recipe):
    better = Measured(
        success_auc=0.9, iou=0.95, values={"iou": 0.95, "gmacs": 0.1}, shares=(), by_sequence={}
    )
    first = front.candidates[0]
    measured = Candidate(
        point=first.point, depths=first.depths, changes={}, weights=None, measured=better
    )
    found = members.named([measured, *front.candidates[1:]], recipe().search)
    assert [member.on_front for member in found] == [True] + [False] * (len(found) - 1)
    assert found[0].closed_loop == {"success_auc": 0.9, "iou": 0.95, "gmacs": 0.1}


def test_numbers_on_page_in_metrics_in_json_and_in_recipes_agree(front, recipe, tmp_path):
    members.write(front, recipe(), tmp_path)
    rows = json.loads((tmp_path / "front.json").read_text())
    looped = {"success_auc": 0.5, "iou": 0.52, "ms": 2.0, "gmacs": 1.5}
    page.write(
        tmp_path,
        [{**row, "closed_loop": looped} for row in rows],
        members.details(front),
        {"trials": []},
    )
    page.write(tmp_path, rows, members.details(front), {"trials": [TRIAL]})
    text = (tmp_path / "front.html").read_text()
    embedded = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL).group(1))
    assert embedded["front"] == rows
    logged = members.metrics(front.members)
    for row in rows:
        assert logged[f"{row['name']}/iou"] == row["iou"]
        assert f"<td>{row['gmacs']:.4f}</td>" in text
        if row["on_front"]:
            lead = (tmp_path / f"front/{row['name']}.yaml").read_text().splitlines()[0]
            assert f"IoU {row['iou']:.3f}, {row['gmacs']:.4f} GMACs" in lead
            assert yaml.safe_load((tmp_path / f"front/{row['name']}.yaml").read_text())
    assert (tmp_path / "front.png").stat().st_size > 1000


def test_recipes_and_metrics_of_an_earlier_front_do_not_stay(front, recipe, tmp_path):
    (tmp_path / "front").mkdir()
    (tmp_path / "front/mine.yaml").write_text("name: mine")
    members.write(front, recipe(), tmp_path)
    before = members.load(tmp_path)
    assert before == list(front.members)
    fewer = replace(front, members=front.members[:2], candidates=front.candidates[:2])
    members.write(fewer, recipe(), tmp_path)
    wanted = {member.name for member in fewer.members if member.on_front} | {"mine"}
    assert {path.stem for path in (tmp_path / "front").iterdir()} == wanted
    logged = members.metrics(fewer.members, before)
    gone = front.members[-1].name
    assert math.isnan(logged[f"{gone}/iou"])
    assert logged["01/iou"] == front.members[0].iou


def test_a_damaged_front_is_one_sentence(tmp_path):
    assert members.load(tmp_path) == []
    for text in ("{", "[{}]", '[{"exits": [1]}]'):
        (tmp_path / "front.json").write_text(text)
        with pytest.raises(StorageError, match=r"front\.json: cannot be read: .*; remove it"):
            members.load(tmp_path)


def test_the_page_says_what_mattered():
    other = {**TRIAL, "number": 1, "changes": {"model.exits": [4], "train.head_lr": 0.001}}
    other["reports"] = [{**TRIAL["reports"][0], "hypervolume": 0.25}]
    assert page.importance([TRIAL, other]) == {"model.exits": 1.0, "train.head_lr": 0.0}


def test_no_rule_that_looks_at_nothing_beats_the_bound(front, cache, costs):
    beside = front.baselines
    bound = beside["oracle 0"].values["iou"]
    assert {"exit-1", "exit-4", "random 02", "cycle 02", "oracle 0"} <= set(beside)
    assert all(point.values["iou"] <= bound + 1e-9 for point in beside.values())
    member, drawn = front.candidates[1].point, beside["random 02"]
    assert drawn.values["gmacs"] == pytest.approx(member.values["gmacs"], rel=0.15)


def test_what_looks_at_nothing_has_the_members_own_name(front, cache, costs):
    """Members of one tracker need not be the first ones of the front."""
    point = front.candidates[1].point
    assert set(baselines.at_shares(cache, {"07": point}, costs)) == {"random 07", "cycle 07"}


def made_member(name, iou, gmacs, ms=1.0):
    values = {"policy": {}, "changes": {}, "closed_loop": None, "weights": None, "on_front": True}
    return members.Member(name=name, exits=(4,), iou=iou, ms=ms, gmacs=gmacs, **values)


def test_the_knee_is_of_accuracy_and_a_cost_whatever_the_order_of_the_objectives():
    ends = [made_member("01", 0.5, 1.0), made_member("02", 0.8, 4.0)]
    for objectives in (("iou", "gmacs"), ("iou", "params"), ("gmacs", "params", "iou")):
        assert members.knee(ends, objectives).name == "02"
    bent = [ends[0], made_member("03", 0.78, 1.5), ends[1]]
    for objectives in (("iou", "gmacs"), ("params", "gmacs", "iou"), ("params", "iou")):
        assert members.knee(bent, objectives).name == "03"
    assert solving.ordering_cost(("gmacs", "iou")) == "gmacs"


def test_a_member_that_breaks_a_constraint_as_measured_is_not_on_the_front(front, recipe):
    limit = front.members[1].gmacs

    def looped(iou, gmacs):
        values = {"iou": iou, "gmacs": gmacs}
        return Measured(success_auc=iou, iou=iou, values=values, shares=(), by_sequence={})

    first, second = (
        replace(one, measured=looped(iou, limit * factor))
        for one, iou, factor in zip(front.candidates[:2], (0.5, 0.6), (0.9, 1.1), strict=True)
    )
    search = recipe(constraints=[f"gmacs <= {limit}"]).search
    assert [m.on_front for m in members.named([first, second], search)] == [True, False]
    assert [m.on_front for m in members.named([second], search)] == [True]


def test_one_sequence_is_one_sample():
    one = {"a": 0.9, "b": 0.1, "c": 0.5}
    mean, low, high = baselines.paired_interval(one, {k: v - 0.1 for k, v in one.items()})
    assert mean == pytest.approx(low) == pytest.approx(high) == pytest.approx(0.1)
    cheap, dear = {"a": 0.5, "b": 0.6}, {"a": 0.6, "b": 0.5}
    assert baselines.like_cheaper([cheap, dear], [1.0, 2.0])[1][0] == 0
    assert baselines.like_cheaper([{"a": 0.5}, {"a": 0.9}], [1.0, 2.0])[1] is not None  # one video
    better = {k: v + 0.2 for k, v in cheap.items()}
    assert baselines.like_cheaper([cheap, better], [1.0, 2.0]) == [None, None]


def test_a_member_is_picked_by_bounds_and_an_aim(front):
    chosen = picking.choose(front.members, front.objectives, picking.parse("gmacs<=2, max iou"))
    assert chosen.gmacs <= 2
    kept = [m.iou for m in front.members if m.on_front and m.gmacs <= 2]
    assert chosen.iou == max(kept)
    cheapest = picking.choose(front.members, front.objectives, picking.parse("min gmacs"))
    assert cheapest.gmacs == min(m.gmacs for m in front.members)
    knee = picking.choose(front.members, front.objectives, None)
    assert knee == members.knee(front.members, front.objectives)
    ends = {front.members[0].name, front.members[-1].name}
    assert len(front.members) < 3 or knee.name not in ends


@pytest.mark.parametrize("text", ["fps>=3", "max", "ms<8", "max iou, max auc", "ms<=x"])
def test_a_pick_that_cannot_be_read_is_refused(text):
    with pytest.raises(ConfigurationError, match="--pick"):
        picking.parse(text)


def test_a_pick_that_nothing_keeps_says_so(front):
    with pytest.raises(ModelLookupError, match="none of the"):
        picking.choose(front.members, front.objectives, picking.parse("iou>=2"))

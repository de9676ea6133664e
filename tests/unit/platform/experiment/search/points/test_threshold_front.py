"""Thresholds solved on cached outputs: chosen on one half, scored on the other."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from dytrack_model.ambiguity import Ambiguity
from dytrack_model.correction import BoxCorrection, corrected_along
from dytrack_model.policy import OperatingPoint
from dytrack_model.thresholds import exits_taken
from dytrack_platform.config import Placements, SearchConfig
from dytrack_platform.errors import DataError, StorageError
from dytrack_platform.experiment.search.points import threshold_front as solving
from dytrack_platform.experiment.search.points.exit_cache import ExitCache, from_pairs
from dytrack_platform.experiment.search.points.threshold_front import Setting
from tests.unit.platform.experiment.search.conftest import made_cache

SEARCH, REFERENCE = SearchConfig(), (0.0, 4.5)


def test_halves_are_of_whole_sequences_and_leave_nothing_out(cache):
    choosing, scoring = cache.halves()
    assert (choosing ^ scoring).all()
    assert not set(cache.sequence[choosing]) & set(cache.sequence[scoring])


def test_one_sequence_is_too_few(cache):
    with pytest.raises(DataError, match="two are needed at least"):
        cache.part(cache.sequence == 0).halves()


def test_the_path_runs_from_all_shallow_to_all_deep(cache):
    found = solving.path(cache.predicted, 50)
    assert (0.0,) * 3 in found
    assert (math.inf,) * 3 in found
    assert len(found) == len(set(found)) <= 50
    assert solving.path(cache.predicted[:, :1], 50) == [()]


def test_extreme_settings_score_as_exits_alone(cache, costs):
    first, last = solving.score(
        cache, [Setting((1, 4), (0.0,)), Setting((1, 4), (math.inf,))], costs
    )
    means = [cache.iou[cache.sequence == k].mean(axis=0) for k in range(6)]
    assert first.values["iou"] == pytest.approx(np.mean(means, axis=0)[0])
    assert last.values["iou"] == pytest.approx(np.mean(means, axis=0)[3])
    assert (first.values["gmacs"], last.values["gmacs"]) == (1.0, 4.0)


def test_a_frame_that_others_learn_from_pays_for_the_heads(cache, costs):
    point = solving.score(cache, [Setting((1, 4), (0.6,))], costs)[0]
    shallow, deep = point.shares
    assert 0 < deep < 1
    assert point.values["gmacs"] == pytest.approx(shallow + deep * (4.0 + 0.5))


def test_nothing_of_the_scoring_half_reaches_the_choice(cache, costs):
    _, scoring = cache.halves()
    spoiled = replace(cache, predicted=cache.predicted.copy())
    spoiled.predicted[scoring] = np.random.default_rng(1).random((scoring.sum(), 4))
    placements = Placements().all(4)
    settings = [
        {
            (p.exits, p.thresholds)
            for p in solving.solve(c, placements, costs, SEARCH, REFERENCE).points
        }
        for c in (cache, spoiled)
    ]
    assert settings[0] == settings[1]


def test_constraints_hold_for_every_point_that_counts(cache, costs):
    search = SearchConfig(constraints=("gmacs <= 2", "iou >= 0.3"))
    free = solving.solve(cache, Placements().all(4), costs, SEARCH, REFERENCE)
    bound = solving.solve(cache, Placements().all(4), costs, search, REFERENCE)
    assert 0 < bound.hypervolume < free.hypervolume
    assert max(p.values["gmacs"] for p in free.points) > 2
    # Chosen within the bound on one half; on the other it may be off by what halves differ.
    assert max(p.values["gmacs"] for p in bound.points) < 2.3


def test_corrections_of_many_policies_are_those_of_the_tracker():
    rng = np.random.default_rng(3)
    boxes = np.concatenate(
        [rng.uniform(20, 40, (30, 3, 2)), rng.uniform(20, 30, (30, 3, 2))], axis=-1
    )
    taken = rng.integers(0, 3, (5, 30))
    found = corrected_along(boxes, taken)
    for policy in range(5):
        own = BoxCorrection(3)
        for frame in range(30):
            raw = boxes[frame][:, None]
            expected = own.apply(raw)[taken[policy, frame], 0]
            np.testing.assert_allclose(found[policy, frame], expected)
            if taken[policy, frame] == 2:
                own.learn(raw)


def test_an_answer_that_is_read_pays_for_its_head(cache, costs):
    clear = replace(cache, clear=np.random.default_rng(2).random(cache.predicted.shape))
    point = solving.score(clear, [Setting((1, 2, 4), (0.7, 0.4), "ambiguity")], costs)[0]
    first, second, deep = point.shares
    # Heads of the exits that were passed: one of the three before the last for the second.
    spent = first + second * (2.0 + 0.5 / 3) + deep * (4.0 + 0.5)
    assert point.values["gmacs"] == pytest.approx(spent)
    # A frame in fifteen runs to full depth whatever its answer is.
    assert deep == pytest.approx(1 / 15 + 14 / 15 * 0.7 * 0.4, abs=0.05)


def test_what_is_promised_by_ambiguity_is_what_the_policy_does():
    rng = np.random.default_rng(4)
    clear = rng.random((200, 4))
    setting = Setting((1, 3, 4), (0.8, 0.3), "ambiguity")
    point = solving.operating_point("x", (1, 2, 3, 4), setting)
    assert OperatingPoint.from_dict(json.loads(json.dumps(point.to_dict()))) == point
    policy = point.policy()
    assert policy.reads_head
    policy.begin_target()
    exits, audits = [], []
    for answers in clear.tolist():
        policy.begin_frame()
        audits.append(3 not in exits[-14:] if len(exits) >= 15 else not exits)
        shown = [Ambiguity(min(1.0, 2 * (1 - c)), *[max(0.0, 1 - 2 * c)] * 2) for c in answers]
        exits.append(next((k for k in range(3) if policy.leave(k, 0.5, shown[k])), 3))
        if exits[-1] == 3:
            policy.full_depth([0.5] * 4, [1.0] * 3)
    own = exits_taken(clear[:, [0, 2, 3]], setting.thresholds)
    assert exits == np.where(audits, 3, np.array([0, 2, 3])[own]).tolist()
    assert len(set(exits)) == 3


@pytest.mark.parametrize("limits", [(0.0, 0.0), (math.inf, math.inf), (0.0, math.inf)])
def test_what_decides_nothing_looks_at_no_head(limits):
    setting = Setting((1, 3, 4), limits, "ambiguity")
    assert not setting.reads_heads
    assert solving.operating_point("x", (1, 2, 3, 4), setting).value is None


def test_a_placement_that_ends_early_leaves_by_thresholds(cache, costs):
    clear = replace(cache, clear=cache.predicted)
    search = SearchConfig(rule="ambiguity")
    solved = solving.solve(clear, [(1, 2), (1, 4)], costs, search, REFERENCE)
    rules = {(point.exits, point.rule) for point in solved.points}
    assert rules == {((1, 2), "thresholds"), ((1, 4), "ambiguity")}


def test_pairs_have_no_ambiguity(cache, costs):
    with pytest.raises(DataError, match="these are pairs; take thresholds"):
        solving.solve(cache, [(1, 4)], costs, SearchConfig(rule="ambiguity"), REFERENCE)


@pytest.mark.parametrize("clear", [False, True])
def test_a_cache_survives_its_file(tmp_path, clear):
    cache = made_cache(boxes=True)
    cache = replace(cache, clear=cache.predicted) if clear else cache
    cache.save(tmp_path / "cache.npz")
    read = ExitCache.load(tmp_path / "cache.npz")
    assert (read.clear is None) == (not clear)
    for name in ("predicted", "boxes_xywh", *(["clear"] if clear else [])):
        np.testing.assert_array_equal(getattr(read, name), getattr(cache, name))


@pytest.mark.slow
def test_every_placement_of_twelve_exits_takes_seconds():
    import time

    cache = made_cache(frames=1500, exits=12, sequences=20, boxes=True)
    costs = solving.Costs(stop={"gmacs": np.linspace(0.2, 2.0, 12)})
    began = time.process_time()
    solved = solving.solve(cache, Placements().all(12), costs, SEARCH, (0.0, 2.2))
    assert time.process_time() - began < 10  # not what else the machine does
    assert solved.tried > 67 * 30


def test_spread_members_are_unbeaten_and_cheap_ones_come_first(cache, costs):
    solved = solving.solve(cache, Placements().all(4), costs, SEARCH, REFERENCE)
    values = [point.values for point in solved.points]
    chosen = solving.spread(values, SEARCH.objectives, REFERENCE, 4)
    assert len(chosen) == 4
    spent = [values[k]["gmacs"] for k in chosen]
    assert spent == sorted(spent)
    four = solving.volume_of([values[k] for k in chosen], SEARCH.objectives, REFERENCE)
    assert four > 0.9 * solving.volume(solved.points, SEARCH.objectives, REFERENCE)


def test_thresholds_of_a_placement_never_leave_at_exits_that_it_lacks():
    assert solving.expand((1, 2, 3, 4), Setting((2, 4), (0.7,))) == (
        math.inf,
        0.7,
        math.inf,
    )
    assert solving.expand((1, 2, 3, 4), Setting((4,))) == (math.inf,) * 3
    assert solving.expand((1, 2, 3, 4), Setting((1, 3), (0.5,))) == (0.5, math.inf, 0.0)


def test_a_cache_survives_the_disk(tmp_path):
    for boxes in (False, True):
        cache = made_cache(boxes=boxes)
        cache.save(tmp_path / "cache.npz")
        again = ExitCache.load(tmp_path / "cache.npz")
        np.testing.assert_array_equal(again.predicted, cache.predicted)
        assert (again.depths, again.names) == (cache.depths, cache.names)
        assert (again.boxes_xywh is None) is not boxes


def test_a_damaged_cache_is_one_sentence_wherever_the_damage_is(cache, tmp_path):
    path = tmp_path / "a.npz"
    cache.save(path)
    whole = path.read_bytes()
    for at in range(0, len(whole) - 40, len(whole) // 60):
        path.write_bytes(whole[:at] + b"\xff" * 40 + whole[at + 40 :])
        with pytest.raises(StorageError, match=r"a\.npz: cannot be read"):
            ExitCache.load(path)


def test_pairs_of_one_sequence_lie_together():
    predicted = iou = np.arange(8.0).reshape(2, 4) / 10
    cache = from_pairs((1, 2), predicted, iou, ["b", "a", "b", "a"])
    assert cache.names == ("a", "b")
    assert cache.sequence.tolist() == [0, 0, 1, 1]
    assert cache.iou[:, 0].tolist() == [0.1, 0.3, 0.0, 0.2]


def test_the_reference_point_is_what_is_stated():
    stated = SearchConfig(reference={"iou": 0.2})
    assert solving.reference_point(stated, {"gmacs": 2.0}) == (0.2, pytest.approx(2.2))

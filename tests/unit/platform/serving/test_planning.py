"""The rule of the scheduler, without a clock and without a network."""

from dataclasses import dataclass

import pytest

from dytrack_platform.serving.planning import Planner, Table
from dytrack_platform.serving.simulation import Load, simulate


@dataclass
class Frame:
    graph: str
    deadline: float = 1.0
    rows: int = 1


def table(fixed, exits=3, most=8):
    """Stages of 4 ms and heads of 0.2; a batch costs ``fixed`` of one frame's time once."""
    names = [f"stage{k}" for k in range(exits)] + [f"head{k}" for k in range(exits)]
    cost = {name: 4.0 if name.startswith("stage") else 0.2 for name in names}
    sizes = [n for n in (1, 2, 4, 8) if n <= most]
    rows = {name: {n: ms * (fixed + (1 - fixed) * n) for n in sizes} for name, ms in cost.items()}
    return Table(rows | {"template": {1: 1.0}}, exits=exits)


def test_between_two_sizes_a_table_is_a_straight_line_and_beyond_it_batches_repeat():
    known = Table({"stage0": {1: 2.0, 4: 5.0}}, exits=1)
    assert known.cost("stage0", 1) == pytest.approx(0.002)
    assert known.cost("stage0", 2) == pytest.approx(0.003)
    assert known.cost("stage0", 8) == pytest.approx(0.010)
    assert known.cost("stage0", 0) == 0.0
    assert known.cost("stage0", 0.5) == pytest.approx(0.001)


def test_heads_go_before_stages_and_deep_stages_before_shallow_ones():
    planner = Planner(table(0.5))
    frames = [Frame("stage0"), Frame("stage1"), Frame("head0"), Frame("stage1"), Frame("template")]
    assert planner.choose(frames, 0.0) == [4]
    assert planner.choose(frames[:4], 0.0) == [2]
    assert planner.choose([frames[0], frames[1], frames[3]], 0.0) == [1, 2]


def test_frames_of_two_regions_are_no_batch_and_do_not_wait_for_each_other():
    plain = table(1.0).milliseconds
    narrow = {f"narrow_{name}": by for name, by in plain.items() if name != "template"}
    planner = Planner(Table({**plain, **narrow}, exits=3))
    frames = [Frame("narrow_stage0"), Frame("stage0"), Frame("narrow_stage0")]
    assert planner.choose(frames, 0.0) in ([1], [0, 2])
    assert planner.choose([Frame("narrow_head0"), Frame("stage1")], 0.0) == [0]
    # Newcomers catch up where a batch costs the same whatever its size, in their own region only.
    for deep, shallow, waits in (
        ("narrow_stage1", "narrow_stage0", True),
        ("stage1", "narrow_stage0", False),
    ):
        found = planner.choose([Frame(deep), *[Frame(shallow)] * 3], 0.0)
        assert (found == [1, 2, 3]) == waits, (deep, shallow)


@pytest.mark.parametrize(("fixed", "together"), [(0.0, 1), (0.02, 1), (0.1, 2), (1.0, 4)])
def test_a_batch_is_as_large_as_makes_it_cheaper(fixed, together):
    frames = [Frame("stage0", deadline) for deadline in (0.4, 0.1, 0.3, 0.2)]
    chosen = Planner(table(fixed)).choose(frames, 0.0)
    assert chosen == [1, 3, 2, 0][:together], "the most urgent first"


def test_frames_alone_are_answered_sooner_and_the_last_no_later():
    load = Load(streams=4, seconds=20, shares=(0.8, 0.0, 0.2))
    stages = simulate(table(0.0), load)
    whole = simulate(table(0.0), load, mode="whole")
    assert stages.mean_ms < 0.95 * whole.mean_ms
    assert stages.p99_ms < 0.95 * whole.p99_ms
    assert stages.regroupings == 0
    assert stages.busy_s == pytest.approx(whole.busy_s, rel=1e-6)


def test_where_batches_save_nothing_nobody_waits():
    planner = Planner(table(0.0))
    planner.going_on = [0.9, 0.9, 0.0]
    frames = [Frame("stage2")] + [Frame("stage1") for _ in range(5)]
    assert planner.choose(frames, 0.0) == [0]
    assert planner.regroupings == 0


def test_where_batches_cost_nothing_more_who_is_deep_waits_for_many_newcomers():
    planner = Planner(table(1.0))
    planner.going_on = [0.9, 0.9, 0.0]
    frames = [Frame("stage2")] + [Frame("stage1") for _ in range(5)]
    assert planner.choose(frames, 0.0) == [1, 2, 3, 4, 5]
    assert planner.regroupings == 1
    # Nobody's deadline is missed by it.
    frames[0].deadline = 0.005
    assert planner.choose(frames, 0.0) == [0]


def test_a_batch_holds_as_many_rows_as_fit_the_most_urgent_first():
    planner = Planner(table(0.5), most_rows=4)
    frames = [Frame("stage0", deadline=1.0 - 0.1 * k) for k in range(6)]
    assert planner.choose(frames, 0.0) == [5, 4, 3, 2]
    frames[5].rows = 3
    assert planner.choose(frames, 0.0) == [5, 4]
    assert planner.choose([Frame("stage0", rows=9)], 0.0) == [0], "a large search runs alone"


def test_one_frame_costs_no_thought():
    planner = Planner(table(1.0))
    assert planner.choose([Frame("stage1")], 0.0) == [0]


@pytest.mark.parametrize("fixed", [0.0, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("streams", [1, 2, 4, 6])
def test_batches_by_stage_are_never_slower_than_whole_ones(fixed, streams):
    load = Load(streams=streams, seconds=10)
    stages, whole = (simulate(table(fixed), load, mode=mode) for mode in ("stages", "whole"))
    assert stages.frames == whole.frames
    assert stages.mean_ms <= whole.mean_ms * 1.001


def test_one_stream_is_answered_in_the_time_of_its_own_stages():
    load = Load(streams=1, seconds=4, shares=(1.0, 0.0, 0.0))
    found = simulate(table(0.5), load)
    assert found.mean_ms == pytest.approx(4.2, abs=0.2)
    assert found.regroupings == 0


def test_regrouping_saves_computing_time_and_answers_sooner():
    load = Load(streams=14, seconds=60, shares=(0.5, 0.25, 0.25))
    with_, without = (simulate(table(0.9), load, regroup=on) for on in (True, False))
    assert with_.regroupings > 100
    assert with_.busy_s < without.busy_s
    assert with_.mean_ms <= without.mean_ms

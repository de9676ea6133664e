"""Batches give what single frames give, whatever the runtime and the mode."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from dytrack_model import checkpoint
from dytrack_model.checkpoint import SavedTracker
from dytrack_model.config import variant
from dytrack_model.images import RGB
from dytrack_model.network import DyTrackNetwork
from dytrack_model.online import Tracker
from dytrack_model.policy import find_point
from dytrack_model.runtime.engine import Call
from dytrack_platform.serving.batching import open_served
from dytrack_platform.serving.planning import Planner, Table
from dytrack_platform.serving.scheduler import Job, Scheduler
from dytrack_platform.serving.simulation import Load, simulate

from .conftest import GOLDEN, POINTS


def held_until(event):
    """A work that computes nothing, and holds the scheduler's thread until an event."""
    assert event.wait(timeout=30)
    yield from ()


def run(scheduler, works):
    """Run works together, all of them there before the first is begun; returns their jobs."""
    ready, all_there = threading.Semaphore(0), threading.Event()
    jobs = [Job(work, lambda job: ready.release(), deadline=1e9) for work in works]
    scheduler.submit(Job(held_until(all_there), lambda job: None, deadline=1e9))
    for job in jobs:
        scheduler.submit(job)
    all_there.set()
    for _ in jobs:
        assert ready.acquire(timeout=30)
    return jobs


def where_batches_pay(table):
    """The same graphs on a machine where eight rows cost what one does.

    What a busy machine measures may say that a batch does not pay, and the planner then rightly
    makes none.
    """
    flat = {graph: dict.fromkeys(by, 1.0) for graph, by in table.milliseconds.items()}
    return Table(flat, exits=table.exits)


def boxes_of(served, frames, starts, mode="stages", point="balanced"):
    seen = []
    planner = Planner(where_batches_pay(served.table), served.runner.most_rows)
    scheduler = Scheduler(served.runner, planner, mode, seen.append)
    narrow = served.engine.config.narrow_size > 0
    policy = replace(find_point(POINTS, point, 3), narrow=narrow)
    trackers = [Tracker(served.engine, policy.policy()) for _ in starts]
    try:
        works = [t.starting(RGB(frames[0]), box) for t, box in zip(trackers, starts, strict=True)]
        assert not [job.error for job in run(scheduler, works) if job.error]
        rows = []
        for frame in frames[1:]:
            jobs = run(scheduler, [tracker.stepping(RGB(frame)) for tracker in trackers])
            assert not [job.error for job in jobs if job.error]
            rows.append([job.result for job in jobs])
    finally:
        scheduler.stop()
    return rows, seen


STARTS = [(40.0 + 3 * k, 30.0 + k, 30.0, 24.0 + k) for k in range(6)]


@pytest.mark.parametrize("mode", ["stages", pytest.param("whole", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="plain"),
        pytest.param({"narrow_size": 96}, id="narrow", marks=pytest.mark.slow),
        pytest.param({"attention": "template-cached"}, id="cached", marks=pytest.mark.slow),
        pytest.param(
            {"recycling": "cascade", "iou_token": "read_only"}, id="cascade", marks=pytest.mark.slow
        ),
        pytest.param(
            {"template_matching": True, "token_type": "target"},
            id="matching",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_boxes_in_batches_are_those_of_single_streams(frames, mode, changes):
    import torch

    torch.manual_seed(0)
    saved = SavedTracker(network=DyTrackNetwork(variant("test", **changes)).eval(), points=POINTS)
    served = open_served(saved, rounds=1)
    rows, seen = boxes_of(served, frames, STARTS, mode)
    assert max(ran.rows for ran in seen) == len(STARTS), "there were batches"
    narrow = "narrow_size" in changes
    assert any(ran.graph.startswith("narrow_") for ran in seen) == narrow
    for k, box in enumerate(STARTS):
        point = replace(find_point(POINTS, "balanced", 3), narrow=narrow)
        alone = Tracker(saved.network, point.policy())
        expected = list(alone.track((RGB(frame) for frame in frames), box))
        for row, one in zip(rows, expected, strict=True):
            # In [0, 1] of the search crop, whose side is four times the target's: an untrained
            # network's boxes soon fill the frame, and fp32 has seven digits.
            side = 4 * np.sqrt(one.box_xywh[2:].prod())
            np.testing.assert_allclose(row[k].box_xywh, one.box_xywh, atol=1e-6 * max(side, 100))
            assert row[k].exit == one.exit
            assert row[k].state == one.state


@pytest.mark.slow
def test_boxes_of_a_trained_tracker_in_batches_are_the_same_to_a_ten_thousandth_of_a_pixel(frames):
    saved = checkpoint.load(GOLDEN)
    served = open_served(saved, rounds=1)
    planner = Planner(served.table, served.runner.most_rows)
    scheduler = Scheduler(served.runner, planner)
    starts = STARTS[:4]
    trackers = [Tracker(served.engine, states=None) for _ in starts]
    alone = [Tracker(served.engine, states=None) for _ in starts]
    try:
        works = [t.starting(RGB(frames[0]), box) for t, box in zip(trackers, starts, strict=True)]
        run(scheduler, works)
        for one, box in zip(alone, starts, strict=True):
            one.start(RGB(frames[0]), box)
        for frame in frames[1:]:
            jobs = run(scheduler, [tracker.stepping(RGB(frame)) for tracker in trackers])
            for job, tracker, one in zip(jobs, trackers, alone, strict=True):
                expected = one.step(RGB(frame))
                np.testing.assert_allclose(job.result.box_xywh, expected.box_xywh, atol=1e-4)
                # From the same place again: a crop that lies a millionth of a pixel elsewhere may
                # round another way.
                tracker.move_to(expected.box_xywh)
                one.move_to(expected.box_xywh)
    finally:
        scheduler.stop()


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_graphs_of_fixed_shapes_are_filled_up(saved, frames, runtime):
    served = open_served(saved, runtime, "fp32", rounds=1)
    assert served.runner.most_rows == 8
    rows, seen = boxes_of(served, frames, STARTS[:3])
    assert max(ran.rows for ran in seen) == 3
    for k, box in enumerate(STARTS[:3]):
        alone = Tracker(served.engine, find_point(POINTS, "balanced", 3).policy())
        expected = list(alone.track((RGB(frame) for frame in frames), box))
        for row, one in zip(rows, expected, strict=True):
            np.testing.assert_allclose(row[k].box_xywh, one.box_xywh, atol=1e-3)


def test_a_work_that_fails_fails_alone(served, frames):
    scheduler = Scheduler(served.runner, Planner(served.table))
    good = Tracker(served.engine)
    try:
        bad, fine = run(
            scheduler,
            [
                Tracker(served.engine).stepping(RGB(frames[0])),
                good.starting(RGB(frames[0]), STARTS[0]),
            ],
        )
    finally:
        scheduler.stop()
    assert "call start" in str(bad.error)
    assert fine.error is None
    with pytest.raises(RuntimeError, match="stopped"):
        scheduler.submit(Job(good.stepping(RGB(frames[1])), lambda job: None, 0.0))


def test_audits_run_when_nothing_else_waits_and_are_dropped_where_too_many_wait(served, frames):
    scheduler = Scheduler(served.runner, Planner(served.table))
    tracker = Tracker(served.engine, find_point(POINTS, "fast", 3).policy())
    done = threading.Semaphore(0)
    try:
        run(scheduler, [tracker.starting(RGB(frames[0]), STARTS[0])])
        (step,) = run(scheduler, [tracker.stepping(RGB(frames[1]))])
        audit = Job(tracker.auditing(), lambda job: done.release(), float("inf"), audit=True)
        scheduler.submit(audit)
        assert done.acquire(timeout=30)
    finally:
        scheduler.stop()
    assert audit.result.exit_index == 0
    assert audit.result.predicted_iou == pytest.approx(step.result.predicted_iou)
    assert 0 <= audit.result.agreement <= 1


class Machine:
    """A runner whose batches take what a table says."""

    most_rows = 8

    def __init__(self, table):
        self.table = table

    def run(self, calls, rows):
        until = time.perf_counter() + self.table.cost(calls[0].graph, sum(rows))
        while (left := until - time.perf_counter()) > 0:
            time.sleep(left if left > 2e-4 else 0)


def passing(exit_index):
    """A frame that goes to an exit and leaves there."""
    for stage in range(exit_index + 1):
        yield Call(f"stage{stage}", {"search": np.zeros(1)})
    yield Call(f"head{exit_index}", {"search": np.zeros(1)})


def busy_of(table, load, regroup):
    """Send frames as the simulation does, by the clock; returns milliseconds of a frame."""
    scheduler = Scheduler(Machine(table), Planner(table, 8, regroup))
    arrivals = load.arrivals(table.exits)
    done = threading.Semaphore(0)
    began = time.perf_counter()
    for at, _, exit_index in arrivals:
        time.sleep(max(0.0, began + at - time.perf_counter()))
        deadline = began + at + load.deadline_ms / 1e3
        scheduler.submit(Job(passing(exit_index), lambda job: done.release(), deadline))
    for _ in arrivals:
        assert done.acquire(timeout=30)
    scheduler.stop()
    return scheduler.busy_s * 1e3 / len(arrivals), scheduler.planner.regroupings


@pytest.mark.slow
@pytest.mark.parametrize("fixed", [0.5, 0.95])
def test_the_simulation_foretells_what_the_scheduler_does(fixed):
    """With and without regrouping, on a machine that is a table."""
    parts = {f"stage{k}": 5.0 for k in range(3)} | {f"head{k}": 1.0 for k in range(3)}
    rows = {g: {n: ms * (fixed + (1 - fixed) * n) for n in (1, 2, 4, 8)} for g, ms in parts.items()}
    table = Table(rows, exits=3)
    streams = {0.5: 5, 0.95: 10}[fixed]
    load = Load(streams=streams, seconds=6.0, shares=(0.5, 0.25, 0.25), deadline_ms=80.0)
    found = {}
    for regroup in (True, False):
        foretold = simulate(table, load, regroup=regroup)
        measured, times = busy_of(table, load, regroup)
        found[regroup] = measured, foretold.busy_s * 1e3 / foretold.frames
        assert measured == pytest.approx(found[regroup][1], rel=0.15)
        assert (times > 0) == (foretold.regroupings > 0)
    gains = [1 - found[True][k] / found[False][k] for k in (0, 1)]
    assert gains[0] == pytest.approx(gains[1], abs=0.05)

"""The state machine, the plan of a search, and a tracker that loses its target."""

import gc
import tracemalloc

import numpy as np
import pytest
import torch

from dytrack_model.config import variant
from dytrack_model.errors import ConfigurationError
from dytrack_model.images import RGB
from dytrack_model.online import Tracker
from dytrack_model.policy import FixedExit
from dytrack_model.runtime.engine import Engine
from dytrack_model.runtime.graphs import chain, part
from dytrack_model.target_state import StateConfig, StateMachine, keep_inside, looks

BOX = (60.0, 50.0, 12.0, 10.0)


class Scripted(Engine):
    """Random boxes, and predicted IoUs that a test sets; no network."""

    def __init__(self, predicted_iou=0.9, any_batch=True):
        config = variant("test")
        self.predicted_iou, self.any_batch, self.crops = predicted_iou, any_batch, []
        self._rng = np.random.default_rng(0)
        side = config.map_size
        shapes = {"score": (side, side), "size": (2, side, side), "offset": (2, side, side)}

        def run(graph):
            def given(first, *_):
                batch = len(first)
                return tuple(
                    self._rng.uniform(size=(batch, *shapes.get(part(name), ()))).astype(np.float32)
                    for name in graph.outputs
                )

            return given

        graphs = {graph.name: run(graph) for graph in chain(config)}
        super().__init__(config, "scripted", "fp32", graphs)

    def begin(self, search, template_state):
        self.crops.append(len(search))
        return super().begin(search, template_state)

    def decide(self, exit_index, tensors):
        values = np.full(len(tensors["search"]), self.predicted_iou, dtype=np.float32)
        return values + np.linspace(0, 1e-6, len(values), dtype=np.float32)

    def adopt(self, array):
        return array

    def keep(self, tensor):
        return tensor

    def to_torch(self, tensor):
        return torch.from_numpy(tensor)


@pytest.fixture
def frame():
    return RGB(np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8))


def run(machine, *predicted):
    return [str(machine.update(value)) for value in predicted]


def test_a_sure_target_is_tracked_and_one_bad_frame_is_doubted_at_most():
    assert set(run(StateMachine(StateConfig()), 0.9, 0.9, 0.5, 0.9, 0.9)) == {"tracking"}
    states = run(StateMachine(StateConfig()), 0.9, 0.9, 0.0, 0.9, 0.9)
    assert states == ["tracking", "tracking", "doubtful", "doubtful", "tracking"]


def test_a_target_that_fades_is_doubtful_before_it_is_lost():
    states = run(StateMachine(StateConfig()), 0.9, *[0.5] * 6, *[0.2] * 4)
    assert [state for k, state in enumerate(states) if state not in states[:k]] == [
        "tracking",
        "doubtful",
        "lost",
    ]


def test_doubt_ends_later_than_it_begins():
    config = StateConfig(smoothing=1.0, lost_below=0.2, doubtful_below=0.4, sure_above=0.5)
    states = run(StateMachine(config), 1.0, 0.45, 0.39, 0.45, 0.49, 0.51, 0.45)
    assert states == ["tracking"] * 2 + ["doubtful"] * 3 + ["tracking"] * 2


def test_thresholds_follow_how_sure_a_tracker_is_of_this_target():
    """Who is never sure has not lost the target; whose score falls by half within frames has."""
    modest = StateMachine(StateConfig())
    assert set(run(modest, *[0.45] * 200)) == {"tracking"}
    assert run(modest, *[0.2] * 6)[-1] == "lost"
    proud = StateMachine(StateConfig())
    assert set(run(proud, *[0.9] * 200)) == {"tracking"}
    assert run(proud, *np.linspace(0.9, 0.3, 10))[-1] == "lost"
    assert proud.level > 0.85
    # Below the least level there is nothing to be a share of.
    assert run(StateMachine(StateConfig()), *[0.05] * 10)[-1] == "lost"


def test_to_come_back_takes_more_than_to_leave():
    """What never lost a target does not find it again, and one frame is not enough."""
    machine = StateMachine(StateConfig())
    run(machine, 0.9, *[0.0] * 10)
    assert set(run(machine, *[0.55] * 50)) == {"lost"}
    assert run(machine, 0.9, 0.5, 0.9, 0.7, 0.73) == ["lost"] * 5
    assert run(machine, 0.9, 0.9, 0.9) == ["found again", "tracking", "tracking"]


def test_random_scores_only_take_the_steps_there_are():
    rng = np.random.default_rng(0)
    machine = StateMachine(StateConfig())
    steps, before = set(), "tracking"
    for _ in range(20_000):
        after = str(machine.update(float(np.clip(rng.normal(0.4, 0.35), 0, 1))))
        steps.add((before, after))
        before = after
    assert ("lost", "tracking") not in steps
    assert ("lost", "doubtful") not in steps
    assert {b for a, b in steps if a == "lost"} == {"lost", "found again"}
    assert {a for a, b in steps if b == "found again"} == {"lost"}
    assert ("found again", "found again") not in steps


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"smoothing": 0.0}, "smoothing: must lie in"),
        ({"least_level": 0.0}, "least_level: must lie in"),
        ({"lost_below": 0.85}, "lost_below <= doubtful_below"),
        ({"found_above": 0.3}, "sure_above <= found_above"),
        ({"found_frames": 0}, "found_frames: must be at least 1"),
        ({"widen_every": 0}, "widen_every: must be at least 1"),
    ],
)
def test_thresholds_out_of_order_are_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        StateConfig(**changes)


def test_the_search_widens_step_by_step():
    machine = StateMachine(StateConfig(widen_every=2))
    while run(machine, 0.0) != ["lost"]:
        pass
    widths = []
    for _ in range(8):
        machine.update(0.0)
        widths.append(machine.widening)
    assert widths == sorted(widths)
    assert set(widths) >= {1.5, 2.0, 3.0, 4.5}


@pytest.mark.parametrize("widening", [1.5, 2.0, 3.0, 4.5, 1e6])
@pytest.mark.parametrize("side", [48.0, 100.0, 900.0])
@pytest.mark.parametrize("around", [(60, 50), (0, 0), (640, 480)])
def test_crops_cover_the_region_within_the_frame(widening, side, around):
    size = (640, 480)
    plan = looks(around, side, widening, size, 0, 9)
    assert len(plan.centres) <= 9
    assert plan.side <= 2 * side
    turns = {
        place
        for turn in range(60)
        for place in looks(around, side, widening, size, turn, 9).centres
    }
    half = 0.5 * side * widening
    for x in np.linspace(max(0, around[0] - half), min(640, around[0] + half), 20):
        for y in np.linspace(max(0, around[1] - half), min(480, around[1] + half), 20):
            assert any(
                max(abs(x - place[0]), abs(y - place[1])) <= 0.5 * plan.side + 1e-6
                for place in turns
            )


def test_a_place_is_moved_no_further_than_the_frame_asks():
    assert keep_inside((50, 60), (20, 10), (160, 120)) == (50, 60)
    assert keep_inside((-500, 119), (20, 10), (160, 120)) == (10, 115)
    assert keep_inside((3, 3), (500, 500), (160, 120)) == (80, 60)


@pytest.mark.parametrize("any_batch", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_box_without_a_target_neither_grows_nor_runs_away(frame, any_batch):
    """Hundreds of frames; memory stays flat too."""
    engine = Scripted(any_batch=any_batch)
    tracker = Tracker(engine)
    tracker.start(frame, BOX)
    for _ in range(5):
        sure = tracker.step(frame)
    assert sure.state == "tracking"
    states = []
    for number in range(350):
        engine.predicted_iou = 0.05 if number % 7 else 0.7  # now and then it seems to be there
        found = tracker.step(frame)
        states.append(str(found.state))
        if found.state in ("doubtful", "lost"):
            np.testing.assert_allclose(found.box_xywh[2:], sure.box_xywh[2:])
            assert (found.box_xywh[:2] >= -1e-9).all()
            assert found.box_xywh[0] + found.box_xywh[2] <= 160 + 1e-9
            assert found.box_xywh[1] + found.box_xywh[3] <= 120 + 1e-9
        else:
            sure = found
        assert max(engine.crops) <= (3 if any_batch else 1)
        engine.crops.clear()
        if number == 150:
            tracemalloc.start()
        if number == 250:
            gc.collect()  # free lists fill slowly
            early = tracemalloc.get_traced_memory()[0]
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - early
    tracemalloc.stop()
    assert grown < 250_000  # one crop a frame would be 9.8 million
    assert set(states[20:]) == {"lost"}


def test_a_target_that_comes_back_is_found_again_and_then_tracked(frame):
    engine = Scripted()
    tracker = Tracker(engine)
    tracker.start(frame, BOX)
    engine.predicted_iou = 0.0
    for _ in range(30):
        lost = tracker.step(frame)
    assert lost.lost
    assert lost.extra_gmacs == pytest.approx((engine.crops[-1] - 1) * tracker.exit_gmacs[-1])
    engine.predicted_iou = 0.9
    first, second, third = (tracker.step(frame) for _ in range(3))
    assert [str(one.state) for one in (first, second, third)] == ["lost", "found again", "tracking"]
    # The place that was found is looked at once more, alone, and nothing else is.
    assert engine.crops[-2:] == [1, 1]
    np.testing.assert_allclose(first.box_xywh[2:], lost.box_xywh[2:])


def test_a_doubtful_frame_is_followed_to_full_depth_at_a_frozen_size(frame):
    engine = Scripted()
    tracker = Tracker(engine, FixedExit(0))
    tracker.start(frame, BOX)
    sure = tracker.step(frame)
    assert sure.exit_index == 0
    engine.predicted_iou = 0.55
    seen = [tracker.step(frame) for _ in range(12)]
    doubtful = [one for one in seen if one.state == "doubtful"]
    assert [one.exit_index for one in doubtful[1:]] == [2] * (len(doubtful) - 1)
    sizes = np.stack([one.box_xywh[2:] for one in doubtful])
    assert len(doubtful) > 5
    assert np.ptp(sizes, axis=0).max() < 1e-9
    assert np.ptp(np.stack([one.box_xywh[:2] for one in doubtful]), axis=0).max() > 1


def test_a_new_start_and_a_move_forget_that_the_target_was_lost(frame):
    engine = Scripted(0.0)
    tracker = Tracker(engine)
    for again in (lambda: tracker.start(frame, BOX), lambda: tracker.move_to(BOX)):
        tracker.start(frame, BOX)
        assert [tracker.step(frame) for _ in range(10)][-1].lost
        again()
        np.testing.assert_allclose(tracker.box_xywh, BOX)
        assert tracker.step(frame).state == "tracking"


def test_without_states_every_frame_is_taken_as_it_is_found(frame):
    engine = Scripted(0.1)
    tracker = Tracker(engine, states=None)
    tracker.start(frame, BOX)
    seen = [tracker.step(frame) for _ in range(20)]
    assert all(one.lost for one in seen)
    assert set(engine.crops) == {1}
    assert np.ptp(np.stack([one.box_xywh[2:] for one in seen]), axis=0).max() > 1

import numpy as np
import pytest
import torch

from dytrack_model.ambiguity import CLEAR
from dytrack_model.correction import overlap
from dytrack_model.depth_value import FEATURES, ValueOfDepth, ValueRule
from dytrack_model.errors import BoxError, ConfigurationError, ImageError
from dytrack_model.images import RGB
from dytrack_model.online import Tracker
from dytrack_model.policy import CycleExit, FixedExit, RandomExit, Thresholds
from dytrack_model.runtime.engine import finish
from dytrack_model.runtime.torch_engine import TorchEngine
from dytrack_model.target_state import StateConfig

BOX = (150.0, 100.0, 50.0, 40.0)


def follow(network, policy, frames, **options):
    tracker = Tracker(network, policy, **options)
    tracker.start(RGB(frames[0]), BOX)
    return [tracker.step(RGB(frame)) for frame in frames[1:]]


@pytest.fixture
def frames(image):
    return [np.roll(image, 3 * index, axis=1) for index in range(4)]


def test_threshold_zero_leaves_at_the_first_exit_and_infinity_at_the_last(network, frames):
    assert {t.exit_index for t in follow(network, Thresholds((0.0, 0.0)), frames)} == {0}
    infinite = float("inf")
    assert {t.exit_index for t in follow(network, Thresholds((infinite, infinite)), frames)} == {2}


def test_forced_depth_gives_the_box_of_the_full_forward_pass(network, frames, image):
    deep = follow(network, Thresholds((float("inf"),) * 2), frames)
    fixed = follow(network, FixedExit(2), frames)
    for first, second in zip(deep, fixed, strict=True):
        np.testing.assert_allclose(first.box_xywh, second.box_xywh)


def test_deciding_never_runs_a_head_that_is_not_used(network, frames):
    ran = []
    for index, head in enumerate(network.heads):
        head.register_forward_hook(lambda *_, index=index: ran.append(index))
    follow(network, Thresholds((2.0, 0.0)), frames)
    assert ran == [1, 1, 1]


@pytest.mark.parametrize(
    ("policy", "asked"), [(FixedExit(2), [2]), (Thresholds((0.9999, 0.9999)), [0, 1, 2])]
)
def test_only_a_policy_that_reads_scores_waits_for_them(network, frames, policy, asked):
    read = []
    engine = TorchEngine(network)
    decide = engine.decide
    engine.decide = lambda index, tensors: (read.append(index), decide(index, tensors))[1]
    follow(engine, policy, frames)
    assert read == 3 * asked


def test_training_crop_equals_tracking_crop(network, image):
    """The tracker must look at exactly the pixels that training would cut there."""
    from dytrack_model.crops import centre, crop, crop_side

    seen = []
    network.backbone.patch_embed.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    tracker = Tracker(network)
    tracker.start(RGB(image), BOX)
    tracker.step(RGB(image))
    expected = crop(image, centre(BOX), crop_side(BOX, 4.0), 128)
    restored = (seen[1] * network.deviation + network.mean) * 255
    pixels = restored[0].permute(1, 2, 0).round().to(torch.uint8).numpy()
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((1, 2, 0, 5), "has no area"),
        ((1, 2, -3, 5), "has no area"),
        ((float("nan"), 2, 3, 5), "NaN or infinity"),
        ((400, 2, 3, 5), "outside the image of 320x240"),
        ((1, 2, 3), "four numbers"),
        ("abc", "four numbers"),
    ],
)
def test_a_box_that_is_no_target_is_refused(network, image, box, message):
    with pytest.raises(BoxError, match=message):
        Tracker(network).start(RGB(image), box)


@pytest.mark.parametrize("states", [None, StateConfig()])
def test_a_tracker_goes_on_in_a_frame_of_another_size(network, image, states):
    tracker = Tracker(network, states=states)
    tracker.start(RGB(image), BOX)
    for width in (120, 320, 60):
        frame = RGB(np.ascontiguousarray(image[:, :width]))
        x, y, w, h = tracker.step(frame).box_xywh
        assert 0 <= x < x + w <= width
        assert 0 <= y < y + h <= 240


def test_a_step_before_the_start_is_refused(network, image):
    with pytest.raises(ImageError, match="call start"):
        Tracker(network).step(RGB(image))


def test_a_missing_or_damaged_file_is_named(network, tmp_path):
    with pytest.raises(ImageError, match=r"gone\.jpg: no such image file"):
        Tracker(network).start(tmp_path / "gone.jpg", BOX)
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"bad\.jpg: does not decode"):
        Tracker(network).start(tmp_path / "bad.jpg", BOX)


def test_a_moved_tracker_looks_around_the_new_box_with_the_old_template(network, frames):
    still, moved = Tracker(network), Tracker(network)
    for tracker in (still, moved):
        tracker.start(RGB(frames[0]), BOX)
    elsewhere = (20.0, 30.0, 50.0, 40.0)
    moved.move_to(elsewhere)
    np.testing.assert_allclose(moved.box_xywh, elsewhere)
    assert not np.allclose(still.step(RGB(frames[1])).box_xywh, moved.step(RGB(frames[1])).box_xywh)
    with pytest.raises(BoxError, match="outside the image"):
        moved.move_to((900.0, 0.0, 5.0, 5.0))
    with pytest.raises(BoxError, match="an image's size is its width and height"):
        moved.move_to(BOX, (10,))
    with pytest.raises(ImageError, match="call start"):
        Tracker(network).move_to(BOX)


def test_every_exits_box_is_that_of_a_tracker_fixed_to_it(network, frames):
    """One look at all exits equals one tracker for each, on the same crop."""
    every = Tracker(network)
    every.start(RGB(frames[0]), BOX)
    tracks = every.step_all(RGB(frames[1]))
    assert [track.exit_index for track in tracks] == [0, 1, 2]
    assert [track.exit for track in tracks] == [1, 2, 4]
    for index, track in enumerate(tracks):
        alone = follow(network, FixedExit(index), frames[:2])[0]
        np.testing.assert_allclose(track.box_xywh, alone.box_xywh)
        assert track.predicted_iou == pytest.approx(alone.predicted_iou)
    np.testing.assert_allclose(every.box_xywh, tracks[-1].box_xywh)


MIXED = {
    "thresholds": lambda: Thresholds((2.0, 0.5)),
    "random": lambda: RandomExit((0.4, 0.2, 0.4), seed=1),
    "value": lambda: ValueOfDepth(
        ValueRule(weights=((0.0,) * FEATURES,) * 2, costs=(0.4, 0.6, 1.0), price=1.0, audit_every=2)
    ),
}
UNIFORM = {
    "full depth": lambda: Thresholds((float("inf"),) * 2),
    "first exit": lambda: Thresholds((0.0, 0.0)),
    "never deep": lambda: Thresholds((0.5, 0.0)),
    "fixed": lambda: FixedExit(2),
    "cycle of one": lambda: CycleExit((2,)),
    "free depth": lambda: ValueOfDepth(
        ValueRule(weights=((0.0,) * FEATURES,) * 2, costs=(0.4, 0.6, 1.0), price=0.0)
    ),
}


@pytest.mark.parametrize("name", UNIFORM)
def test_a_policy_of_one_depth_pays_no_head_for_corrections(network, frames, name):
    ran = []
    for index, head in enumerate(network.heads):
        head.register_forward_hook(lambda *_, index=index: ran.append(index))
    found = follow(network, UNIFORM[name](), frames)
    assert ran == [one.exit_index for one in found]
    assert {one.extra_gmacs for one in found} == {0.0}
    plain = follow(network, UNIFORM[name](), frames, correct=False)
    for one, other in zip(found, plain, strict=True):
        np.testing.assert_array_equal(one.box_xywh, other.box_xywh)


def test_a_policy_that_reads_risks_has_each_head_run_once(network, frames):
    ran, told = [], []
    for index, head in enumerate(network.heads):
        head.register_forward_hook(lambda *_, index=index: ran.append(index))

    class Second(Thresholds):
        """Leaves at the second exit, and in every third frame at the last."""

        reads_head = varies = True

        def leave(self, exit_index, predicted_iou, ambiguity=CLEAR):
            told.append(ambiguity)
            return exit_index == 1 and len(told) % 3 != 0

    heads = [head.macs() / 1e9 for head in network.heads]
    expected = []
    for one in follow(network, Second((0.0, 0.0)), frames * 3, states=None):
        expected += [*range(one.exit_index + 1)]
        assert one.exit_index > 0
        assert one.extra_gmacs == pytest.approx(sum(heads[: one.exit_index]))
    assert ran == expected
    assert all(0 <= number <= 1 for ambiguity in told for number in ambiguity)
    assert len(set(told)) > 1


def test_a_risk_is_of_the_box_that_would_be_given(network, frames):
    """Where depth corrects shallow boxes by a lot, the corrected one counts as unmoved."""
    told = []

    class Listens(CycleExit):
        reads_head = True

        def leave(self, exit_index, predicted_iou, ambiguity=CLEAR):
            told.append((exit_index, ambiguity))
            return super().leave(exit_index, predicted_iou)

    def ambiguities(correct):
        told.clear()
        found = follow(network, Listens((2, 0)), frames[:3], correct=correct, states=None)
        return found, [ambiguity for exit_index, ambiguity in told if exit_index == 0]

    found, corrected = ambiguities(correct=True)
    _, plain = ambiguities(correct=False)
    assert corrected[0] == plain[0]  # nothing was learned yet
    assert corrected[1] != plain[1]
    side = np.ceil(np.sqrt(found[0].box_xywh[2:].prod()) * network.config.search_factor)
    moved = found[1].box_xywh[:2] + found[1].box_xywh[2:] / 2
    moved -= found[0].box_xywh[:2] + found[0].box_xywh[2:] / 2
    expected = np.hypot(*moved) / side * network.config.search_factor
    assert corrected[1].displacement == pytest.approx(min(expected, 1.0), abs=1e-6)


@pytest.mark.parametrize("name", MIXED)
def test_all_heads_run_in_frames_at_full_depth_and_are_counted(network, frames, name):
    ran = []
    for index, head in enumerate(network.heads):
        head.register_forward_hook(lambda *_, index=index: ran.append(index))
    expected, heads = [], sum(network.heads[k].macs() for k in range(2)) / 1e9
    for one in follow(network, MIXED[name](), frames * 3):
        deep = one.exit_index == 2
        expected += [2, 0, 1] if deep else [one.exit_index]
        assert one.extra_gmacs == pytest.approx(heads if deep else 0.0)
    assert ran == expected


def test_a_shallow_box_is_moved_by_what_depth_said_of_the_last_one(network, frames):
    cycle = CycleExit((2, 0))
    corrected, plain = (follow(network, cycle, frames[:3], correct=c) for c in (True, False))
    np.testing.assert_array_equal(corrected[0].box_xywh, plain[0].box_xywh)
    assert not np.allclose(corrected[1].box_xywh, plain[1].box_xywh)
    # A new target has nothing to be corrected by.
    tracker = Tracker(network, cycle)
    for _ in range(2):
        tracker.start(RGB(frames[0]), BOX)
        again = [tracker.step(RGB(frame)) for frame in frames[1:3]]
        np.testing.assert_array_equal(again[1].box_xywh, corrected[1].box_xywh)


def test_an_audit_compares_a_frame_that_left_early_with_full_depth(network, image):
    early = Tracker(network, Thresholds((0.0, 0.0)), states=None, hann=0.0)
    early.start(image, (150, 100, 50, 40))
    left = early.step(image)
    audit = finish(early.engine, early.auditing())
    deep = Tracker(network, states=None, hann=0.0)
    deep.start(image, (150, 100, 50, 40))
    full = deep.step(image)
    assert audit.exit_index == 0
    assert audit.predicted_iou == left.predicted_iou
    assert audit.predicted_iou_deep == pytest.approx(full.predicted_iou, abs=1e-6)
    expected = overlap(left.box_xywh[None, None], full.box_xywh[None, None])[0, 0]
    assert audit.agreement == pytest.approx(float(expected), abs=1e-6)
    # It is done once, and changes nothing of what follows.
    assert finish(early.engine, early.auditing()) is None
    assert finish(deep.engine, deep.auditing()) is None


def test_a_callers_array_may_be_used_again(network, image):
    box = np.array([40.0, 30.0, 30.0, 24.0])
    tracker = Tracker(network)
    for begin in (lambda: tracker.start(image, box), lambda: tracker.move_to(box)):
        begin()
        box[:] = 1.0
        assert tracker.box_xywh.tolist() == [40.0, 30.0, 30.0, 24.0]
        box[:] = [40.0, 30.0, 30.0, 24.0]
    with pytest.raises(BoxError, match="in pixels, not as shares of the image"):
        tracker.start(image, (0.2, 0.3, 0.1, 0.1))


def test_predictions_compare_and_hash_as_objects(network, image):
    first, second = list(Tracker(network).track([image, image, image], [40.0, 30.0, 30.0, 24.0]))
    assert first == first
    assert first != second
    assert len({first, second}) == 2


def test_a_name_in_place_of_a_network_is_told_where_it_belongs():
    with pytest.raises(ConfigurationError, match=r"got str; Tracker\.load opens a saved tracker"):
        Tracker("reference")

"""The narrow search region: the middle of the search crop, by the same network."""

import numpy as np
import pytest
import torch

from dytrack_model.config import variant
from dytrack_model.cost import planned_gmacs, planned_head_gmacs
from dytrack_model.crops import centre, crop, crop_side
from dytrack_model.errors import ConfigurationError
from dytrack_model.images import RGB
from dytrack_model.narrow import SLOW_BELOW, WIDE_FRAMES, Pace, narrowed
from dytrack_model.network import DyTrackNetwork
from dytrack_model.online import Tracker
from dytrack_model.policy import (
    CycleExit,
    FixedExit,
    Hysteresis,
    OperatingPoint,
    RandomExit,
    Thresholds,
    find_point,
)
from dytrack_model.runtime.graphs import chain, part, place
from dytrack_model.target_state import TargetState

BOX = (150.0, 100.0, 50.0, 40.0)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return DyTrackNetwork(variant("test", narrow_size=96)).eval()


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (120, "less than search_size 128 by a multiple of 16, two patches, got 120"),
        (128, "less than search_size 128"),
        (144, "less than search_size 128"),
        (-16, "narrow_size: must not be negative"),
        (16, "a crop of 16 pixels would be smaller than the target with search_factor 4"),
    ],
)
def test_a_region_whose_tokens_are_not_those_of_the_middle_is_refused(size, message):
    with pytest.raises(ConfigurationError, match=message):
        variant("test", narrow_size=size)


def test_a_network_without_a_narrow_region_has_none():
    with pytest.raises(ConfigurationError, match="there is no narrow search crop"):
        narrowed(DyTrackNetwork(variant("test")).eval())


def test_the_narrow_network_has_the_same_weights_in_the_same_memory(network):
    narrow = narrowed(network)
    own = {name: tensor.data_ptr() for name, tensor in network.named_parameters()}
    assert {name: tensor.data_ptr() for name, tensor in narrow.named_parameters()} == own
    assert narrow.config.search_size == 96
    assert narrow.config.search_factor == pytest.approx(3.0), "the same scale"
    assert network.config.search_size == 128
    assert network.heads[0].map_size == 16, "the caller's is not changed"


@torch.inference_mode()
def test_its_tokens_are_those_of_the_middle(network, crops):
    template, search = crops
    state = network.embed_template(template)
    whole = network.embed_search(search, state)[:, -256:].unflatten(1, (16, 16))
    middle = narrowed(network).embed_search(search[..., 16:112, 16:112], state)[:, -144:]
    torch.testing.assert_close(middle, whole[:, 2:14, 2:14].flatten(1, 2))


@torch.inference_mode()
def test_its_boxes_are_as_large_in_pixels(network):
    """Away from the border, which a head pads, its maps are those of the whole map."""
    features = torch.randn(2, 16, 16, 64, generator=torch.Generator().manual_seed(3))
    maps = network.heads[1](features.flatten(1, 2))
    middle = narrowed(network).heads[1](features[:, 2:14, 2:14].flatten(1, 2))
    here, there = slice(4, 8), slice(6, 10)
    torch.testing.assert_close(middle.score[:, here, here], maps.score[:, there, there])
    torch.testing.assert_close(middle.offset[..., here, here], maps.offset[..., there, there])
    in_pixels = maps.size[..., there, there] * 128
    torch.testing.assert_close(middle.size[..., here, here] * 96, in_pixels)


@torch.inference_mode()
def test_a_box_is_never_larger_than_the_narrow_crop(network):
    head = narrowed(network).heads[0]
    head.size.bias.fill_(20.0)
    assert head(torch.zeros(1, 144, 64)).size.max() < 1


@torch.inference_mode()
def test_a_coarse_map_is_described_on_its_own_cells():
    torch.manual_seed(0)
    network = DyTrackNetwork(variant("test", narrow_size=64, decisioner="both")).eval()
    narrow = narrowed(network).score_summaries[0]
    assert narrow.elsewhere.shape == (64, 64)
    assert network.score_summaries[0].elsewhere.shape == (256, 256)
    features = torch.zeros(1, 64, 64)
    features[0, 0] = network.score_summaries[0].score.weight[0]  # one corner stands out
    peak, lead, _, _ = narrow.describe(features)[0].tolist()
    bias = float(network.score_summaries[0].score.bias)
    assert lead == pytest.approx(peak - bias, rel=1e-5), "the rival is any cell that is far away"


def test_graphs_of_the_narrow_region_have_names_of_their_own(network):
    graphs = {graph.name: graph for graph in chain(network.config)}
    assert {"stage0", "narrow_stage0", "head2", "narrow_head2"} <= set(graphs)
    assert "narrow_template" not in graphs, "the template is the same"
    assert graphs["narrow_stage1"].whole_name == "stage1"
    assert set(graphs["narrow_stage0"].inputs) == {"narrow_search", "template_state0"}
    assert place("narrow_stage1") == ("stage", 1, True)
    assert place("head0") == ("head", 0, False)
    assert place("template") == ("template", 0, False)
    assert part("narrow_tokens1") == "tokens"
    assert len(chain(variant("test"))) == 7


def test_after_a_fast_frame_the_whole_region_is_looked_at_for_a_while():
    pace = Pace()
    assert pace.slow
    pace.moved(SLOW_BELOW + 0.01)
    seen = []
    for _ in range(WIDE_FRAMES + 1):
        seen.append(pace.slow)
        pace.moved(0.0)
    assert seen == [False] * WIDE_FRAMES + [True]
    pace.rush()
    assert not pace.slow


POLICIES = {
    "thresholds": lambda narrow: Thresholds((0.5, 0.5), narrow),
    "held": lambda narrow: Hysteresis(Thresholds((0.5, 0.5), narrow), 0.1),
    "fixed": lambda narrow: FixedExit(1, narrow),
    "random": lambda narrow: RandomExit((0.5, 0.2, 0.3), narrow=narrow),
    "cycle": lambda narrow: CycleExit((0, 2), narrow=narrow),
}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("narrow", [False, True])
def test_any_policy_may_look_at_the_narrow_region(network, image, name, narrow):
    tracker = Tracker(network, POLICIES[name](narrow), states=None)
    tracker.start(RGB(image), BOX)
    found = tracker.step(RGB(image))
    assert found.narrow == narrow
    planned, whole = planned_gmacs(tracker.engine.config.narrowed()), tracker.exit_gmacs
    cost = whole[found.exit_index] + found.extra_gmacs
    heads = planned_head_gmacs(tracker.engine.config.narrowed() if narrow else network.config)
    most = (planned if narrow else whole)[found.exit_index] + sum(heads[: found.exit_index])
    least = (planned if narrow else whole)[found.exit_index]
    assert least - 1e-12 <= cost <= most + 1e-12
    assert planned[0] < 0.75 * whole[0]


def test_it_looks_at_the_middle_of_what_it_would_have_looked_at(network, image):
    seen = []
    network.backbone.patch_embed.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    tracker = Tracker(network, FixedExit(2, narrow=True), states=None)
    tracker.start(RGB(image), BOX)
    tracker.step(RGB(image))
    expected = crop(image, centre(BOX), crop_side(BOX, 3.0), 96)
    restored = (seen[1] * network.deviation + network.mean) * 255
    pixels = restored[0].permute(1, 2, 0).round().to(torch.uint8).numpy()
    np.testing.assert_array_equal(pixels, expected)


def test_a_doubted_target_and_one_that_is_said_to_be_elsewhere_get_the_whole_region(network, image):
    tracker = Tracker(network, FixedExit(0, narrow=True))
    tracker.start(RGB(image), BOX)
    tracker._belief._machine.state = TargetState.DOUBTFUL
    assert not tracker.step(RGB(image)).narrow
    tracker.pace.rush()
    tracker.move_to(BOX)
    assert tracker.step(RGB(image)).narrow, "who says where it is knows"
    tracker.move_to(BOX)
    tracker.pace.rush()
    assert not tracker.step(RGB(image)).narrow
    tracker.start(RGB(image), BOX)
    assert tracker.step(RGB(image)).narrow, "a new target has not moved yet"


def test_after_a_search_the_whole_region_is_looked_at(network, image):
    tracker = Tracker(network, FixedExit(0, narrow=True))
    tracker.start(RGB(image), BOX)
    tracker._belief._machine.state = TargetState.LOST
    tracker.step(RGB(image))
    assert not tracker.pace.slow


def test_without_states_a_frame_that_is_called_lost_is_followed_by_whole_ones(network, image):
    tracker = Tracker(network, FixedExit(0, narrow=True), states=None, lost_below=1.0)
    tracker.start(RGB(image), BOX)
    first = tracker.step(RGB(image))
    assert (first.narrow, first.lost) == (True, True)
    assert not tracker.step(RGB(image)).narrow


def test_frames_of_another_size_are_looked_at_as_a_whole(network, image):
    tracker = Tracker(network, FixedExit(0, narrow=True), states=None)
    tracker.start(RGB(image), BOX)
    assert tracker.step(RGB(image)).narrow
    assert not tracker.step(RGB(np.ascontiguousarray(image[::2, ::2]))).narrow


def test_an_audit_goes_on_in_the_region_that_the_frame_had(network, image):
    tracker = Tracker(network, FixedExit(0, narrow=True), states=None)
    tracker.start(RGB(image), BOX)
    found = tracker.step(RGB(image))
    calls, work = [], tracker.auditing()
    try:
        while True:
            calls.append(next(work))
            tracker.engine.run(calls[-1])
    except StopIteration as done:
        audit = done.value
    assert [call.graph for call in calls] == ["narrow_stage1", "narrow_stage2", "narrow_head2"]
    assert audit.exit_index == found.exit_index
    assert 0 <= audit.agreement <= 1


def test_a_point_that_looks_narrowly_needs_a_tracker_that_can(network):
    point = OperatingPoint(name="quick", thresholds=(0.5, 0.5), narrow=True)
    plain = DyTrackNetwork(variant("test")).eval()
    with pytest.raises(ConfigurationError, match=r"narrow_size is 0\); choose another"):
        Tracker(plain, point.policy())
    assert not find_point((), "full", 3).policy().narrow
    assert Tracker(network, point.policy()).policy.narrow


def test_a_point_survives_json_with_its_region():
    point = OperatingPoint(name="quick", thresholds=(0.5, float("inf")), narrow=True)
    assert OperatingPoint.from_dict(point.to_dict()) == point
    assert "narrow" not in OperatingPoint(name="plain", thresholds=(0.5,)).to_dict()
    with pytest.raises(ValueError, match="narrow: must be true or false, got 1"):
        OperatingPoint.from_dict({**point.to_dict(), "narrow": 1})


def test_a_network_that_goes_on_learning_is_followed(network):
    narrow = narrowed(network)
    with torch.no_grad():
        network.backbone.search_position.add_(1.0)
    grid = network.backbone.search_position.unflatten(1, (16, 16))[:, 2:14, 2:14]
    torch.testing.assert_close(narrow.backbone._middle_positions(), grid.flatten(1, 2))

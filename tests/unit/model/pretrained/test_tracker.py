"""A network that starts from another tracker computes what that one computed up to there."""

from dataclasses import replace

import pytest
import torch

from dytrack_model import checkpoint
from dytrack_model.config import variant
from dytrack_model.errors import CheckpointError
from dytrack_model.network import DyTrackNetwork
from dytrack_model.pretrained import tracker as reader


@pytest.fixture
def tracker(tmp_path, network):
    with torch.no_grad():  # heads and recycling start at values that do not tell exits apart
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return checkpoint.save(tmp_path / "tracker", network)


def load_tracker(network, folder):
    tensors = checkpoint.read_weights(folder / checkpoint.WEIGHTS)
    return reader.load_tracker(network, checkpoint.read_config(folder), tensors, str(folder))


def _student(**changes):
    torch.manual_seed(7)
    return DyTrackNetwork(variant("test", **changes)).eval()


def _outputs(network, crops):
    with torch.no_grad():
        return network(*crops)


def test_the_first_blocks_of_a_tracker_give_its_first_exits(tracker, network, crops):
    student = _student(depth=2, exits=(1, 2))
    told = load_tracker(student, tracker)
    assert told[1] == "2 of 4 blocks; exits: 1 from 1, 2 from 2"
    for ours, theirs in zip(_outputs(student, crops), _outputs(network, crops), strict=False):
        assert torch.equal(ours.boxes_cxcywh, theirs.boxes_cxcywh)
        assert torch.equal(ours.predicted_iou, theirs.predicted_iou)


def test_an_exit_at_a_new_depth_takes_the_nearest_ones_and_a_first_one_no_recycling(
    tracker, network
):
    student = _student(depth=3, exits=(2, 3))
    told = load_tracker(student, tracker)
    assert told[1] == "3 of 4 blocks; exits: 2 from 2, 3 from 2"
    state, source = student.state_dict(), network.state_dict()
    for name, value in state.items():
        part, _, rest = name.partition(".")
        if part == "heads":
            assert torch.equal(value, source[f"heads.1.{rest.partition('.')[2]}"]), name
        if part == "recycling":
            assert torch.equal(value, source[name]), name
    single = _student(depth=1, exits=(1,))
    assert load_tracker(single, tracker)[1] == "1 of 4 blocks; exits: 1 from 1"


def test_positions_are_resampled_to_smaller_crops(tracker, network):
    student = _student(template_size=32, search_size=64)
    told = load_tracker(student, tracker)
    assert "model.search_size was 128 there and is 64 here" in told
    fine = network.backbone.search_position.detach().reshape(16, 16, -1)
    coarse = student.backbone.search_position.detach().reshape(8, 8, -1)
    halves = fine.reshape(8, 2, 8, 2, -1).mean(dim=(1, 3))
    inner = slice(1, -1)
    near = (coarse - halves)[inner, inner].abs().mean()
    assert near < 0.5 * halves[inner, inner].abs().mean()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"width": 96}, "model.width is 64 there and 96 here"),
        ({"patch": 16}, "model.patch is 8 there and 16 here"),
        ({"depth": 6, "exits": (2, 6)}, "has 4 blocks, model.depth asks for 6"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(tracker, change, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        load_tracker(_student(**change), tracker)


def test_heads_of_another_width_start_anew(tracker):
    student = _student(head_width=16)
    fresh = {k: v.clone() for k, v in student.state_dict().items()}
    assert load_tracker(student, tracker)[0].endswith("anew: heads")
    for name, value in student.state_dict().items():
        if name.startswith("heads."):
            assert torch.equal(value, fresh[name])


def test_a_change_of_meaning_is_told(tracker, network):
    student = DyTrackNetwork(replace(network.config, iou_token="read_only"))
    told = load_tracker(student, tracker)
    assert told[-1] == "model.iou_token was 'bidirectional' there and is 'read_only' here"

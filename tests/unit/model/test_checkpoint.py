import json

import pytest
import torch
from safetensors.torch import save_file

from dytrack_model import checkpoint
from dytrack_model.config import variant
from dytrack_model.errors import CheckpointError, ConfigurationError
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import OperatingPoint

POINTS = (
    OperatingPoint(name="fast", thresholds=(0.0, 0.0)),
    OperatingPoint(name="accurate", thresholds=(float("inf"), float("inf"))),
)


def test_a_saved_tracker_loads_with_equal_weights_and_points(network, tmp_path):
    checkpoint.save(tmp_path / "t", network, POINTS, {"step": 3})
    saved = checkpoint.load(tmp_path / "t")
    assert saved.network.config == network.config
    assert saved.points == POINTS
    assert saved.notes == {"step": 3}
    for name, value in network.state_dict().items():
        torch.testing.assert_close(saved.network.state_dict()[name], value)


def test_saving_again_replaces_the_whole_and_leaves_nothing_beside(network, tmp_path):
    for _ in range(2):
        checkpoint.save(tmp_path / "t", network, POINTS)
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_missing_and_extra_tensors_are_named(network, tmp_path):
    tensors = dict(network.state_dict())
    tensors["surplus"] = torch.zeros(1)
    del tensors["backbone.iou_token"]
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"1 missing \(backbone.iou_token\); 1 extra"):
        checkpoint.load_weights(network, tmp_path / "w.safetensors")


def test_weights_of_another_configuration_are_refused(network, tmp_path):
    checkpoint.save(tmp_path / "t", DyTrackNetwork(variant("test", width=96)))
    with pytest.raises(CheckpointError, match="of another shape"):
        checkpoint.load_weights(network, tmp_path / "t" / checkpoint.WEIGHTS)


@pytest.mark.parametrize(
    "damage", ["truncated", "not json", "nested", "newer", "gone", "named 5", "of text"]
)
def test_a_damaged_tracker_is_refused_with_its_file(network, tmp_path, damage):
    folder = checkpoint.save(tmp_path / "t", network)
    description = folder / checkpoint.DESCRIPTION
    if damage == "truncated":
        weights = folder / checkpoint.WEIGHTS
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "not json":
        description.write_text("{")
    elif damage == "nested":
        description.write_text("[" * 100_000)
    elif damage == "named 5":
        point = {"name": 5, "thresholds": [0.5, 0.5]}
        description.write_text(
            json.dumps({**json.loads(description.read_text()), "points": [point]})
        )
    elif damage == "of text":
        values = json.loads(description.read_text())
        values["model"]["width"] = "wide"
        description.write_text(json.dumps(values))
    elif damage == "newer":
        description.write_text(json.dumps({**json.loads(description.read_text()), "format": 99}))
    else:
        description.unlink()
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        checkpoint.load(folder)


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"narrow": True}, r"'p': must have a narrow search region to look at"),
        ({"thresholds": [0.5]}, r"'p': must have a rule for each of 3 exits, got 2"),
        (
            {"value": {"weights": [[0.0] * 11], "costs": [0.5, 1.0], "price": 1, "audit_every": 8}},
            r"'p': must have a rule for each of 3 exits, got 2",
        ),
    ],
)
def test_a_point_that_does_not_fit_its_network_is_refused(network, tmp_path, point, message):
    folder = checkpoint.save(tmp_path / "t", network)
    description = folder / checkpoint.DESCRIPTION
    values = json.loads(description.read_text())
    values["points"] = [{"name": "p", "thresholds": [0.5, 0.5], **point}]
    description.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(folder)


def test_a_whole_number_is_not_given_as_another(network, tmp_path):
    folder = checkpoint.save(tmp_path / "t", network)
    description = folder / checkpoint.DESCRIPTION
    values = json.loads(description.read_text())
    values["model"]["narrow_size"] = 96.0
    description.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"narrow_size: must be a whole number, got 96\.0"):
        checkpoint.load(folder)


def older(folder, network, iou_token):
    """Write a tracker as format 1 did: other names for two parts and for the IoU token's kinds."""
    checkpoint.save(folder, network, POINTS)
    path = folder / checkpoint.DESCRIPTION
    description = json.loads(path.read_text())
    description["format"] = 1
    description["model"]["iou_token"] = iou_token
    path.write_text(json.dumps(description))
    before = {"recycling": "reuse", "score_summaries": "glances"}
    tensors = {}
    for name, value in network.state_dict().items():
        part, _, rest = name.partition(".")
        tensors[f"{before.get(part, part)}.{rest}"] = value.contiguous()
    save_file(tensors, folder / checkpoint.WEIGHTS)
    return folder


@pytest.mark.parametrize(
    ("iou_token", "now"), [("mutual", "bidirectional"), ("reader", "read_only")]
)
def test_a_tracker_of_format_1_is_translated(tmp_path, iou_token, now):
    torch.manual_seed(0)
    network = DyTrackNetwork(variant("test", decisioner="map", iou_token=now))
    folder = older(tmp_path / "t", network, iou_token)
    saved = checkpoint.load(folder)
    assert saved.points == POINTS
    assert saved.network.config == checkpoint.read_config(folder) == network.config
    for name, value in network.state_dict().items():
        assert torch.equal(saved.network.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("iou_token", "now"), [("mutual", "bidirectional"), ("reader", "read_only")]
)
def test_an_old_value_is_refused_elsewhere_with_the_new_one_named(iou_token, now):
    with pytest.raises(ConfigurationError, match=f"iou_token: {iou_token} is now called {now}"):
        variant("test", iou_token=iou_token)


@pytest.mark.parametrize(("weights", "size", "apart"), [("fp16", 0.52, 1e-3), ("int8", 0.36, 2e-2)])
def test_smaller_weights_give_nearly_the_same_boxes(network, crops, tmp_path, weights, size, apart):
    whole = checkpoint.save(tmp_path / "whole", network)
    small = checkpoint.save(tmp_path / "small", network, weights=weights)
    sizes = [(folder / checkpoint.WEIGHTS).stat().st_size for folder in (whole, small)]
    assert sizes[1] < size * sizes[0]
    read = checkpoint.load(small).network
    assert all(
        v.dtype == torch.float32 for v in read.state_dict().values() if v.is_floating_point()
    )
    with torch.no_grad():
        for ours, theirs in zip(read(*crops), network(*crops), strict=True):
            assert (ours.predicted_iou - theirs.predicted_iou).abs().max() < apart
            assert (ours.features - theirs.features).abs().max() < 20 * apart

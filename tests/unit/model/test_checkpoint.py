import json

import pytest
import torch
from safetensors.torch import save_file

from dytrack_model import checkpoint
from dytrack_model.config import variant
from dytrack_model.errors import CheckpointError
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


@pytest.mark.parametrize("damage", ["truncated", "not json", "newer", "gone"])
def test_a_damaged_tracker_is_refused_with_its_file(network, tmp_path, damage):
    folder = checkpoint.save(tmp_path / "t", network)
    description = folder / checkpoint.DESCRIPTION
    if damage == "truncated":
        weights = folder / checkpoint.WEIGHTS
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "not json":
        description.write_text("{")
    elif damage == "newer":
        description.write_text(json.dumps({**json.loads(description.read_text()), "format": 99}))
    else:
        description.unlink()
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        checkpoint.load(folder)

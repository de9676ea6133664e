import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from dytrack_model import checkpoint
from dytrack_platform.errors import DataError, TrainingError
from dytrack_platform.training import state as state_files
from dytrack_platform.training import worker


def weights(state):
    return {name: value.clone() for name, value in state.module.state_dict().items()}


@pytest.fixture(scope="module")
def trained(recipe_below, new_callbacks, tmp_path_factory):
    """Return the configuration of a finished training, and its checkpoints, to be copied."""
    callbacks, config = new_callbacks(), recipe_below(tmp_path_factory.mktemp("trained"))
    state = worker.train(config, callbacks)
    return SimpleNamespace(config=config, callbacks=callbacks, weights=weights(state))


@pytest.fixture
def candidates(trained, tmp_path):
    """Return the checkpoints of a finished training, the newest first, as a test's own copies."""
    shutil.copytree(trained.callbacks.folder, tmp_path / "copied")
    return [str(path) for path in sorted((tmp_path / "copied").glob("step_*"), reverse=True)]


@pytest.mark.slow
def test_an_interrupted_run_equals_an_uninterrupted_one_bit_for_bit(recipe, trained, new_callbacks):
    config, whole = recipe(train__report_steps=1), trained.weights
    killed = new_callbacks(die_at=4)
    with pytest.raises(KeyboardInterrupt):
        worker.train(config, killed)
    again = new_callbacks(killed.folder)
    assert [Path(path).name for path in again.candidates()] == ["step_00000003"]
    resumed = weights(worker.train(config, again, candidates=again.candidates()))
    assert again.losses[0][0] == 4
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_a_damaged_checkpoint_gives_way_to_the_one_before(trained, candidates, callbacks):
    newest, before = candidates[:2]
    file = Path(newest) / "tracker" / checkpoint.WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])
    state = worker.train(trained.config, callbacks, candidates=[newest, before])
    assert f"continuing from step {int(before[-8:])} ({before})" in callbacks.said[-1]
    assert re.search(
        r"cannot be used.*model\.safetensors: damaged.*expected \d+", callbacks.said[-2]
    )
    assert "model.safetensors" in state.notes["refused_checkpoints"][0]


def test_the_last_checkpoint_is_a_tracker_with_operating_points(trained, candidates):
    saved = checkpoint.load(Path(candidates[0]) / "tracker")
    assert [point.name for point in saved.points] == [
        "fast", "quick", "balanced", "careful", "accurate",
    ]  # fmt: skip
    assert {"val/exit1/iou", "val/exit2/iou_error"} <= set(trained.callbacks.metrics)
    assert saved.notes["step"] == 8


@pytest.mark.slow
def test_training_lowers_the_loss(recipe, callbacks):
    worker.train(recipe(train__epochs=6), callbacks)
    assert callbacks.losses[-1][1] < callbacks.losses[0][1]


def test_a_loss_that_is_not_finite_stops_with_advice(recipe, callbacks):
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step \d+, 1 such .*: lower"):
        worker.train(recipe(train__head_lr=1e30, train__backbone_lr=1e30), callbacks)


def test_missing_data_is_told_before_training(recipe, tmp_path):
    config = recipe(data__train=[{"path": str(tmp_path / "nowhere")}])
    with pytest.raises(DataError, match="nowhere"):
        worker.check(config)


def test_what_became_of_initial_weights_is_told_before_training(recipe, tmp_path):
    network = worker.new_state(recipe()).module.network
    tensors = {
        name.removeprefix("backbone."): value
        for name, value in network.state_dict().items()
        if name.startswith("backbone.blocks.")
    }
    width = network.config.width
    tensors["patch_embed.proj.weight"] = network.backbone.patch_embed.weight.detach()
    tensors["pos_embed"] = torch.zeros(1, 197, width)
    tensors["decoder.weight"] = torch.zeros(1)
    save_file(tensors, tmp_path / "vit.safetensors")
    told = worker.check(recipe(train__init_from=str(tmp_path / "vit.safetensors")))
    assert any("1 ignored: decoder.weight" in sentence for sentence in told)
    assert any("untouched: cls_token, norm.bias, norm.weight" in sentence for sentence in told)
    assert worker.check(recipe()) == []


def test_a_tracker_that_computes_something_else_is_told_before_training(recipe, tmp_path):
    config = recipe(model__iou_token="read_only")
    checkpoint.save(tmp_path / "tracker", worker.new_state(config).module.network)
    told = worker.check(recipe(train__init_from=str(tmp_path / "tracker")))
    assert told[0].endswith("tensors of a whole tracker loaded")
    assert told[1:] == ["model.iou_token was 'read_only' there and is 'bidirectional' here"]


def test_a_checkpoint_without_its_seal_is_refused(candidates):
    (Path(candidates[0]) / "state.json").unlink()
    with pytest.raises(state_files.CheckpointError, match=r"state\.json: missing or damaged"):
        state_files.describe(candidates[0])

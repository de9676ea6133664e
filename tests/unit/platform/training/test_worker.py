import re
from pathlib import Path

import pytest
import torch

from dytrack_model import checkpoint
from dytrack_platform.errors import DataError, TrainingError
from dytrack_platform.training import state as state_files
from dytrack_platform.training import worker


def weights(state):
    return {name: value.clone() for name, value in state.module.state_dict().items()}


def test_an_interrupted_run_equals_an_uninterrupted_one_bit_for_bit(recipe, outlet, new_outlet):
    config = recipe(train__report_steps=1)
    whole = weights(worker.train(config, outlet))
    killed = new_outlet(die_at=4)
    with pytest.raises(KeyboardInterrupt):
        worker.train(config, killed)
    again = new_outlet(killed.folder)
    assert [Path(path).name for path in again.candidates()] == ["step_00000003"]
    resumed = weights(worker.train(config, again, candidates=again.candidates()))
    assert again.losses[0][0] == 4
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_a_damaged_checkpoint_gives_way_to_the_one_before(recipe, outlet):
    config = recipe()
    worker.train(config, outlet)
    newest, before = outlet.candidates()[:2]
    file = Path(newest) / "tracker" / checkpoint.WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])
    state = worker.train(config, outlet, candidates=[newest, before])
    assert f"continuing from step {int(before[-8:])} ({before})" in outlet.said[-1]
    assert re.search(r"cannot be used.*model\.safetensors: damaged.*expected \d+", outlet.said[-2])
    assert "model.safetensors" in state.notes["refused_checkpoints"][0]


def test_the_last_checkpoint_is_a_tracker_with_operating_points(recipe, outlet):
    worker.train(recipe(), outlet)
    saved = checkpoint.load(Path(outlet.candidates()[0]) / "tracker")
    assert [point.name for point in saved.points] == [
        "fast", "quick", "balanced", "careful", "accurate",
    ]  # fmt: skip
    assert {"val/exit1/iou", "val/exit2/iou_error"} <= set(outlet.metrics)
    assert saved.notes["step"] == 8


def test_training_lowers_the_loss(recipe, outlet):
    worker.train(recipe(train__epochs=6), outlet)
    assert outlet.losses[-1][1] < outlet.losses[0][1]


def test_a_loss_that_is_not_finite_stops_with_advice(recipe, outlet):
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step \d+, 1 such .*: lower"):
        worker.train(recipe(train__head_lr=1e30, train__backbone_lr=1e30), outlet)


def test_missing_data_is_told_before_training(recipe, tmp_path):
    config = recipe(data__train=[{"path": str(tmp_path / "nowhere")}])
    with pytest.raises(DataError, match="nowhere"):
        worker.check(config)


def test_a_checkpoint_without_its_seal_is_refused(recipe, outlet):
    worker.train(recipe(), outlet)
    (Path(outlet.candidates()[0]) / "state.json").unlink()
    with pytest.raises(state_files.CheckpointError, match=r"state\.json: missing or damaged"):
        state_files.describe(outlet.candidates()[0])

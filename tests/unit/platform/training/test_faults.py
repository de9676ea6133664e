"""What training does about faults that need no cluster to happen."""

import os
from pathlib import Path

import pytest
import torch

from dytrack_platform.datasets.loading import stream
from dytrack_platform.errors import DataError, StorageError, TrainingError
from dytrack_platform.training import loop, objective, worker
from dytrack_platform.training import state as state_files


@pytest.fixture
def poisoned(monkeypatch):
    """Return a function after which the losses of some steps are not numbers."""

    def poison(*steps):
        forward, count = objective.TrainModule.forward, 0

        def spoilt(self, *inputs):
            nonlocal count
            losses = forward(self, *inputs)
            count += self.training
            bad = self.training and count - 1 in steps
            return losses._replace(total=losses.total * float("nan")) if bad else losses

        monkeypatch.setattr(objective.TrainModule, "forward", spoilt)

    return poison


def test_a_loss_that_is_no_number_stops_training_and_keeps_the_batch(recipe, callbacks, poisoned):
    poisoned(5)
    with pytest.raises(TrainingError, match=r"the loss is nan at step 5.*is kept in batch 5"):
        worker.train(recipe(), callbacks)
    ((step, batch),) = callbacks.kept
    assert step == 5
    assert batch.search.shape == (8, 3, 128, 128)
    assert callbacks.candidates()[0].endswith("step_00000003")


def test_a_gradient_that_is_no_number_is_never_sealed_where_nobody_looks_at_each_step(
    recipe, callbacks, monkeypatch
):
    """A GPU's loss is read only now and then; this gradient spoils the weights after that loss."""
    backward, steps = loop._backward, iter(range(100))

    def spoilt(config, state, *rest):
        values = backward(config, state, *rest)
        if next(steps) == 2:
            next(p for p in state.module.parameters() if p.grad is not None).grad.fill_(torch.nan)
            values["norm/all"] = torch.tensor(torch.nan)
        return values

    monkeypatch.setattr(loop, "_backward", spoilt)
    monkeypatch.setattr(loop, "_unwatched", lambda config, state, device: True)
    with pytest.raises(TrainingError, match="the loss or its gradient is not finite within the"):
        worker.train(recipe(), callbacks)
    assert callbacks.candidates() == []


@pytest.mark.slow
def test_as_many_batches_are_left_out_as_the_recipe_allows(recipe, new_callbacks, poisoned):
    poisoned(2, 5)
    callbacks = new_callbacks()
    state = worker.train(recipe(train__skip_nonfinite=2), callbacks)
    assert [step for step, _ in callbacks.kept] == [2, 5]
    assert state.step == 8
    assert state.skipped == callbacks.reports[-1].skipped == 2
    assert state_files.describe(callbacks.candidates()[0])["skipped"] == 2
    for name, value in state.module.state_dict().items():
        assert torch.isfinite(value).all(), name


@pytest.mark.parametrize(
    # A CPU multiplies in fp16 one number at a time.
    "precision",
    [pytest.param("fp16", marks=pytest.mark.slow), "bf16"],
)
def test_a_step_after_a_batch_that_was_left_out_trains_in_every_precision(
    recipe, callbacks, poisoned, precision
):
    poisoned(2)
    state = worker.train(recipe(train__skip_nonfinite=1, train__precision=precision), callbacks)
    assert state.skipped == 1
    assert state.step == 8
    for name, value in state.module.state_dict().items():
        assert torch.isfinite(value).all(), name


def test_one_batch_more_than_allowed_stops_training(recipe, callbacks, poisoned):
    poisoned(2, 5)
    with pytest.raises(TrainingError, match="2 such batches, 1 allowed"):
        worker.train(recipe(train__skip_nonfinite=1), callbacks)


@pytest.mark.slow
def test_what_batch_norm_took_in_with_a_bad_batch_is_taken_back(recipe, callbacks, monkeypatch):
    draw = stream._batch
    count = 0

    def spoilt(pairs, names):
        nonlocal count
        batch = draw(pairs, names)
        count += 1
        if count == 3:
            batch.boxes_cxcywh.fill_(float("nan"))
        return batch

    monkeypatch.setattr(stream, "_batch", spoilt)
    # The images and the losses of this batch are spoilt before anybody can see it.
    state = worker.train(recipe(train__skip_nonfinite=8, train__sample_images=0), callbacks)
    assert state.skipped == 1
    for name, value in state.module.named_buffers():
        assert torch.isfinite(value).all(), name


def test_a_loader_that_dies_ends_training_with_its_reason(recipe, callbacks, monkeypatch):
    read, count = stream.PairProducer._read, 0

    def dying(self, row):
        nonlocal count
        count += 1
        if count > 20:
            raise MemoryError("the loader's thread died")
        return read(self, row)

    monkeypatch.setattr(stream.PairProducer, "_read", dying)
    with pytest.raises(MemoryError, match="the loader's thread died"):
        worker.train(recipe(train__checkpoint_steps=1), callbacks)
    assert callbacks.candidates()  # what was done before is kept


def test_a_shard_that_is_cut_off_ends_training_and_is_named(
    recipe, callbacks, made_clips, tmp_path
):
    import shutil

    copied = tmp_path / "clips"
    shutil.copytree(made_clips, copied)
    for shard in copied.rglob("part-*.parquet"):
        shard.write_bytes(shard.read_bytes()[:2000])
    config = recipe(data__train=[{"path": str(copied)}])
    with pytest.raises(DataError, match="parquet"):
        worker.train(config, callbacks)


def test_a_full_disk_is_named_and_earlier_checkpoints_stay(recipe, callbacks, monkeypatch):
    keep = callbacks.checkpoint

    def full(folder, metrics):
        if metrics["step"] > 3:
            raise OSError(28, os.strerror(28), str(folder))
        keep(folder, metrics)

    monkeypatch.setattr(callbacks, "checkpoint", full)
    with pytest.raises(StorageError, match=r"step 6 cannot be written: .*No space left"):
        worker.train(recipe(), callbacks)
    again = callbacks.candidates()
    state_files.verify(again[0])
    assert again[0].endswith("step_00000003")


@pytest.mark.slow
def test_of_two_damaged_checkpoints_neither_is_used_and_training_starts_anew(recipe, callbacks):
    config = recipe(train__epochs=1, train__checkpoint_steps=2)
    worker.train(config, callbacks)
    assert len(callbacks.candidates()) == 2
    for folder in callbacks.candidates():
        with Path(folder, "state.safetensors").open("r+b") as file:  # one flipped bit
            file.seek(-1, os.SEEK_END)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_END)
            file.write(bytes([byte ^ 1]))
    found = callbacks.candidates()
    state = worker.train(config, callbacks, candidates=found)
    assert "no checkpoint can be used: starting from step 0" in callbacks.said
    assert len(state.notes["refused_checkpoints"]) == len(found)

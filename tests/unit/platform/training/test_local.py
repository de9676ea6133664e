"""Training without Ray: checkpoints in a folder, continued from the newest one."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from dytrack_model import Tracker, checkpoint
from dytrack_platform.config import dump
from dytrack_platform.errors import ConfigurationError, DataError, StorageError, TrainingError
from dytrack_platform.storage.run_lock import run_lock
from dytrack_platform.training import state as state_files
from dytrack_platform.training.local import checkpoints, train_local
from dytrack_platform.training.objective import TrainModule


def weights(tracker):
    return load_file(tracker / "model.safetensors")


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


class AtStep:
    """Takes sentences, and does something once a step was told."""

    def __init__(self, step, act):
        self.step, self.act, self.said = step, act, []

    def __call__(self, sentence):
        self.said.append(sentence)
        if sentence.startswith(f"step {self.step}/"):
            self.act()


def be_killed():
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def died(resident_recipe_below, tmp_path_factory):
    """Return a configuration whose training died in its fifth step of eight, and its files."""
    folder = tmp_path_factory.mktemp("died")
    config = resident_recipe_below(folder / "as it was", name="resumed")
    with pytest.raises(KeyboardInterrupt):
        train_local(config, AtStep(5, be_killed))
    shutil.copytree(config.train.storage, folder / "kept")
    return config, folder / "kept"


@pytest.fixture
def interrupted(died):
    """Return a configuration whose training died, with its folder as it was then."""
    config, kept = died
    shutil.rmtree(config.train.storage)
    shutil.copytree(kept, config.train.storage)
    return config


@pytest.fixture(scope="module")
def whole(resident_recipe_below, tmp_path_factory):
    """Return configuration, state, sentences and folder of a training without a break."""
    config, said = resident_recipe_below(tmp_path_factory.mktemp("whole"), name="whole"), []
    state, tracker = train_local(config, said.append)
    return SimpleNamespace(config=config, state=state, said=said, tracker=tracker)


def folder_of(config):
    return Path(config.train.storage) / config.name


def test_a_training_leaves_a_tracker_and_its_validation(whole, raw_folders):
    config, state, said, tracker = whole.config, whole.state, whole.said, whole.tracker
    assert state.step == 8
    assert tracker == folder_of(config) / "tracker"
    validation = state.notes["validation"]
    for depth in (1, 2):
        assert 0 <= validation[f"val/exit{depth}/iou"] <= 1
        assert 0 <= validation[f"val/exit{depth}/tracked_iou"] <= 1
    assert sum(sentence.startswith("step ") for sentence in said) == 8
    assert any("val" not in sentence and "IoU exit1" in sentence for sentence in said)
    points = {point.name: point for point in checkpoint.load(tracker).points}
    assert points["balanced"].value is not None, "by ambiguity, for there are videos to follow"
    assert 0 <= validation["val/point/balanced/iou"] <= 1
    followed = Tracker.load(tracker).track(raw_folders / "videos/three/img", (20, 30, 30, 24))
    assert len(list(followed)) == 9


def test_a_training_continues_from_its_newest_checkpoint(interrupted, whole):
    said = []
    state, tracker = train_local(interrupted, said.append)
    assert any("continuing from step 3" in sentence for sentence in said)
    assert sum(sentence.startswith("step ") for sentence in said) == 5
    assert state.step == 8
    assert equal(weights(tracker), weights(whole.tracker))


def test_a_damaged_checkpoint_gives_way_to_the_one_before(interrupted, whole):
    folder = folder_of(interrupted)
    (newest,) = checkpoints(folder)
    torn = folder / "checkpoint_000000004"
    shutil.copytree(newest, torn)
    (torn / "state.json").unlink()
    said = []
    _, tracker = train_local(interrupted, said.append)
    assert any("cannot be used" in sentence for sentence in said)
    assert any("continuing from step 3" in sentence for sentence in said)
    assert equal(weights(tracker), weights(whole.tracker))


def test_a_finished_training_is_told_again_and_not_done_again(whole):
    said = []
    state, tracker = train_local(whole.config, said.append)
    assert not any(sentence.startswith("step ") for sentence in said)
    assert "val/exit2/iou" in state.notes["validation"]
    assert tracker == whole.tracker


@pytest.mark.slow
def test_the_newest_checkpoints_are_kept(resident_recipe):
    config = resident_recipe(train__checkpoint_steps=2)
    train_local(config, lambda _: None)
    kept = checkpoints(folder_of(config))
    assert [path.name for path in kept] == ["checkpoint_000000008", "checkpoint_000000006"]
    assert json.loads((kept[0] / "state.json").read_text())["step"] == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train__workers": 2}, r"^train\.workers: training without Ray runs 1, got 2"),
        ({"train__min_workers": 1}, r"^train\.min_workers: only Ray goes on with fewer"),
        ({"train__validate_every": 1}, r"^train\.validate_every: only Ray validates beside"),
        ({"train__storage": "s3://bucket/runs"}, r"^train\.storage: without Ray it is a folder"),
        ({"train__gpu": True}, r"^train\.gpu: this machine has no CUDA device"),
    ],
)
def test_what_only_ray_or_a_gpu_does_is_refused(resident_recipe, monkeypatch, changes, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigurationError, match=message):
        train_local(resident_recipe(**changes), lambda _: None)


@pytest.mark.slow
def test_it_needs_neither_ray_nor_mlflow_nor_parquet():
    code = (
        "import sys, dytrack_platform.training.local\n"
        "sys.exit(bool({'ray', 'mlflow', 'pyarrow', 'plotly', 'optuna'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_torchrun_trains_one_tracker_on_two_processes(resident_recipe, tmp_path):
    config, recipe = resident_recipe(name="spread"), tmp_path / "recipe.yaml"
    recipe.write_text(dump(config))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    told = subprocess.run(
        [*command, "2", "-m", "dytrack_platform.training.local", str(recipe)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stdout.count("step 8/8") == 1, "the first process speaks for both"
    newest = checkpoints(folder_of(config))[0]
    assert state_files.verify(newest)["workers"] == 2
    assert equal(weights(newest / "tracker"), weights(folder_of(config) / "tracker"))


def test_another_configuration_is_refused_under_the_same_name(interrupted):
    changed = replace(interrupted, seed=interrupted.seed + 1)
    with pytest.raises(ConfigurationError, match=r"of another configuration \(seed was"):
        train_local(changed, lambda _: None)


def test_a_missing_folder_is_told_before_training(resident_recipe):
    config = resident_recipe(name="missing")
    gone = replace(config.data.resident[0], root="nowhere")
    data = replace(config.data, resident=(gone, *config.data.resident[1:]))
    said = []
    with pytest.raises(DataError, match="nowhere"):
        train_local(replace(config, data=data), said.append)
    assert said == []


@pytest.mark.slow
def test_told_to_end_it_writes_a_checkpoint_and_goes_on_bit_for_bit(resident_recipe):
    whole, _ = train_local(resident_recipe(name="whole"), lambda _: None)
    config, told = (
        resident_recipe(name="told"),
        AtStep(5, partial(signal.raise_signal, signal.SIGTERM)),
    )
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        train_local(config, told)
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    newest = checkpoints(folder_of(config))[0]
    step = state_files.describe(newest)["step"]
    assert 5 <= step < 8
    assert told.said[-1] == f"stopped at step {step}; the same command continues from there"
    state, _ = train_local(config, lambda _: None)
    assert equal(state.module.state_dict(), whole.module.state_dict())


@pytest.mark.slow
def test_two_at_once_do_not_meet(resident_recipe):
    config = resident_recipe(name="twice")
    with (
        run_lock(folder_of(config)),
        pytest.raises(StorageError, match="is at work on this run"),
    ):
        train_local(config, lambda _: None)


@pytest.mark.slow
def test_sample_images_and_bad_batches_are_kept(resident_recipe, monkeypatch):
    config = resident_recipe(name="kept", train__sample_images=2)
    train_local(config, lambda _: None)
    assert sorted(path.name for path in (folder_of(config) / "samples").iterdir())
    forward = TrainModule.forward

    def spoilt(self, *inputs):
        losses = forward(self, *inputs)
        return losses._replace(total=losses.total * float("nan"))

    monkeypatch.setattr(TrainModule, "forward", spoilt)
    config = resident_recipe(name="spoilt")
    with pytest.raises(TrainingError, match=r"kept in .*bad_batches/step_00000000_rank_0\.safe"):
        train_local(config, lambda _: None)
    (batch,) = (folder_of(config) / "bad_batches").iterdir()
    assert load_file(batch).keys() == {"template", "search", "boxes_cxcywh"}

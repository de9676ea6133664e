"""Callbacks that keep what a worker hands out, as Ray Train would."""

import shutil

import pytest
import torch

from dytrack_platform.training.callbacks import Callbacks, Request


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small matrices gain nothing from more, and lose much where cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class KeepingCallbacks(Callbacks):
    """Keeps checkpoints, and can die after some steps."""

    def __init__(self, folder, die_at=None):
        self.folder, self.die_at = folder, die_at
        self.losses, self.said, self.images, self.kept, self.reports = [], [], [], [], []
        self.requests = {}

    def progress(self, progress):
        self.reports.append(progress)
        self.losses.append((progress.step, progress.losses["loss"]))
        if self.die_at is not None and progress.step >= self.die_at:
            raise KeyboardInterrupt

    def checkpoint(self, folder, metrics):
        shutil.copytree(
            folder, self.folder / f"step_{int(metrics['step']):08d}", dirs_exist_ok=True
        )
        shutil.rmtree(folder)
        self.metrics = metrics

    def candidates(self):
        return [str(path) for path in sorted(self.folder.glob("step_*"), reverse=True)]

    def sample_images(self, png, step):
        self.images.append((step, png))

    def keep_batch(self, batch, step):
        self.kept.append((step, batch))
        return f"batch {step}"

    def request(self, step):
        return self.requests.get(step, Request.NOTHING)

    def say(self, sentence):
        self.said.append(sentence)


@pytest.fixture(scope="session")
def new_callbacks(tmp_path_factory):
    """Return a function that makes callbacks, each with a folder of its own unless one is given."""

    def make(folder=None, die_at=None):
        return KeepingCallbacks(folder or tmp_path_factory.mktemp("kept"), die_at)

    return make


@pytest.fixture
def callbacks(new_callbacks):
    return new_callbacks()

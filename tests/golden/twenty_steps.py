"""Train twenty steps of the recipe ``test`` and print what came of it as JSON.

    python -m tests.golden.twenty_steps CLIPS

In float32 another order of a sum grows to 5 % of the loss within ten steps, and processors differ
in that order. So the arithmetic is the plainest there is, which is the same on all of them: torch's
kernels without vector extensions, MKL's compatible branch, no oneDNN. The first two are read when
torch is loaded, so this is a process of its own with :data:`PLAIN` in its environment.
"""

import hashlib
import json
import sys
from pathlib import Path

import torch

from dytrack_pipelines import recipes
from dytrack_platform.config import load
from dytrack_platform.config.schema import ExperimentConfig
from dytrack_platform.datasets.loading.stream import PairStream
from dytrack_platform.training import worker
from dytrack_platform.training.callbacks import Callbacks

PLAIN = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}


class LossKeeper(Callbacks):
    """Keeps the loss of every step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def progress(self, progress) -> None:
        self.losses.append(progress.losses["loss"])


def first_pairs(config: ExperimentConfig) -> str:
    """Name the first batch by its content: positions of the boxes to a thousandth."""
    stream = PairStream(
        config.data, config.model, seed=config.seed, batch_size=config.train.batch_size
    )
    batch = next(stream.batches(0))
    stream.close()
    rounded = (batch.boxes_cxcywh * 1000).round().to(torch.int32).numpy().tobytes()
    return hashlib.sha256(rounded).hexdigest()[:16]


def main(clips: Path) -> None:
    """Train on a folder of clips, and print the run's name and its losses."""
    torch.set_num_threads(1)
    torch.backends.mkldnn.set_flags(False)
    changes = {"data.train": [{"path": str(clips)}], "train.sample_images": 0}
    config = load(recipes.find("test"), changes)
    callbacks, pairs = LossKeeper(), first_pairs(config)
    worker.train(config, callbacks)
    head = f"recipe test, seed {config.seed}, workers {config.train.workers}, pairs {pairs}"
    print(json.dumps({"head": head, "steps": worker.steps_of(config), "losses": callbacks.losses}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

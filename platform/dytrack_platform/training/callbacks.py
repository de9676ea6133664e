"""What a training tells and asks its surroundings: Ray Train, a Tune trial, or a test."""

import shutil
from enum import IntEnum
from pathlib import Path

from safetensors.torch import save

from dytrack_platform.storage import files
from dytrack_platform.training.batches import Batch
from dytrack_platform.training.progress import Progress


class Request(IntEnum):
    """What a worker asks for after a step; all workers do the highest that any of them asks for."""

    NOTHING = 0
    CHECKPOINT = 1
    """Write a checkpoint now, and go on."""
    STOP = 2
    """Write a checkpoint now, and end."""


class Callbacks:
    """Where a worker's progress and checkpoints go; this one keeps nothing."""

    def progress(self, progress: Progress) -> None:
        """Take progress, every ``train.report_steps`` steps and at the end of an epoch."""

    def checkpoint(self, folder: Path, metrics: dict[str, float]) -> None:
        """Take a checkpoint folder and remove it; every worker calls this with its own part."""
        shutil.rmtree(folder)

    def sample_images(self, png: bytes, step: int) -> None:
        """Take an image of sample predictions."""

    def keep_batch(self, batch: Batch, step: int) -> str:
        """Keep a batch that was not finite; returns where, or nothing where it was not kept."""
        return ""

    def request(self, step: int) -> Request:
        """Say, after every step, whether something outside asks for a checkpoint or the end."""
        return Request.NOTHING

    def say(self, sentence: str) -> None:
        """Take a sentence for whoever watches."""


def write_batch(location: str, batch: Batch, step: int, rank: int) -> str:
    """Write a batch that was not finite beside a run's checkpoints; returns where."""
    tensors = {
        "template": batch.template.contiguous(),  # channels-last, where a device rendered it
        "search": batch.search.contiguous(),
        "boxes_cxcywh": batch.boxes_cxcywh,
    }
    name = f"step_{step:08d}_rank_{rank}.safetensors"
    return files.write_bytes(f"{location}/bad_batches/{name}", save(tensors))

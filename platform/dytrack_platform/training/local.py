"""Train without Ray: one process, or several that ``torchrun`` starts.

::

    dytrack train RECIPE --local
    torchrun --nproc-per-node 2 -m dytrack_platform.training.local RECIPE

Checkpoints are folders under ``train.storage``/NAME; the same command continues from the newest
one that is whole. It needs torch, timm, NumPy, OpenCV, safetensors, pydantic and YAML, and with
``data.resident`` neither Parquet nor MLflow: a bare machine with a graphics card is enough.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist

from dytrack_model.config import require
from dytrack_platform.config import ExperimentConfig, load, require_same
from dytrack_platform.errors import ConfigurationError, DyTrackError
from dytrack_platform.storage import files
from dytrack_platform.storage.run_lock import run_lock
from dytrack_platform.training import state as state_files
from dytrack_platform.training.batches import Batch
from dytrack_platform.training.callbacks import Callbacks, Request, write_batch
from dytrack_platform.training.distributed import DistributedContext
from dytrack_platform.training.progress import Progress
from dytrack_platform.training.state import TrainingState
from dytrack_platform.training.stopping import end_stopped, stopping_gently
from dytrack_platform.training.worker import check, steps_of, train

_CHECKPOINT = "checkpoint_"
Say = Callable[[str], None]


class FolderCallbacks(Callbacks):
    """Keeps the newest checkpoints in a folder, and says a line at every report."""

    def __init__(self, folder: Path, keep: int, context: DistributedContext, say: Say) -> None:
        self._folder, self._keep, self._context, self._say = folder, keep, context, say
        self._asked = Request.NOTHING

    def stop(self) -> None:
        """Have every worker write a checkpoint after this step, and end."""
        self._asked = Request.STOP

    def request(self, step: int) -> Request:
        """Say whether this process was told to end."""
        return self._asked

    def progress(self, progress: Progress) -> None:
        """Say how far it is."""
        exits = " ".join(
            f"{name.removesuffix('/iou')} {value:.3f}"
            for name, value in progress.losses.items()
            if name.endswith("/iou")
        )
        self.say(
            f"step {progress.step}/{progress.steps}  loss {progress.losses['loss']:.3f}  "
            f"IoU {exits}  {progress.samples_per_s:.0f} pairs/s  data wait "
            f"{progress.data_wait:.0%}  {progress.seconds_left:.0f} s left"
        )

    def checkpoint(self, folder: Path, metrics: dict[str, float]) -> None:
        """Move a checkpoint into place; the workers' parts meet in one folder."""
        target = self._folder / f"{_CHECKPOINT}{int(metrics['step']):09d}"
        target.mkdir(parents=True, exist_ok=True)
        # The seal comes last, so that a folder with a seal is whole.
        for path in sorted(folder.rglob("*"), key=lambda p: (p.name == "state.json", str(p))):
            if path.is_file():
                there = target / path.relative_to(folder)
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(path, there)
        shutil.rmtree(folder)
        if self._context.rank == 0:
            for old in checkpoints(self._folder)[self._keep :]:
                shutil.rmtree(old)

    def sample_images(self, png: bytes, step: int) -> None:
        """Write an image of sample predictions."""
        files.write_bytes(f"{self._folder}/samples/step_{step:08d}.png", png)

    def keep_batch(self, batch: Batch, step: int) -> str:
        """Write the batch beside the checkpoints."""
        return write_batch(str(self._folder), batch, step, self._context.rank)

    def say(self, sentence: str) -> None:
        """Say it once, whatever the number of workers."""
        if self._context.rank == 0:
            self._say(sentence)


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoint folders of a run, newest first."""
    found = folder.glob(f"{_CHECKPOINT}*") if folder.is_dir() else ()
    return sorted((path for path in found if path.is_dir()), reverse=True)


def train_local(config: ExperimentConfig, say: Say = print) -> tuple[TrainingState, Path]:
    """Train in this process, as one of those that ``torchrun`` started if it did.

    Returns:
        The finished state, and the folder of the trained tracker.

    Raises:
        ConfigurationError: A GPU is asked for and none is there, or something that only Ray does.
        StorageError: Another command is at work on the run.
        SystemExit: The process was told to end (SIGTERM); its checkpoint is written.
        DyTrackError: What :func:`~dytrack_platform.training.worker.train` raises.
    """
    _refuse_what_ray_does(config)
    context = _context(config)
    folder = Path(config.train.storage) / config.name
    callbacks = FolderCallbacks(folder, config.train.keep_checkpoints, context, say)
    for sentence in check(config):
        callbacks.say(sentence)
    tracker = folder / "tracker"
    with (
        # The lock that a training over Ray holds in this folder, too.
        run_lock(folder, wait_s=2.0) if context.rank == 0 else nullcontext(),
        stopping_gently(callbacks.stop, config.train.grace_s, callbacks.say),
    ):
        found = checkpoints(folder)
        for path in found:
            if (path / state_files.SEAL).is_file():  # others were not finished: passed over
                require_same(state_files.describe(path)["recipe"], config, str(folder))
                break
        state = train(config, callbacks, context, [str(path) for path in found])
        if state.step < steps_of(config):
            end_stopped(state.step, callbacks.say)
        if context.rank == 0:
            files.copy_folder(str(checkpoints(folder)[0] / "tracker"), str(tracker))
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
    return state, tracker


def _refuse_what_ray_does(config: ExperimentConfig) -> None:
    settings, world = config.train, int(os.environ.get("WORLD_SIZE", "1"))
    require(
        settings.workers in (1, world),
        f"train.workers: training without Ray runs {world}, got {settings.workers}; start as many "
        "with torchrun, or train over Ray",
    )
    require(
        settings.min_workers == 0,
        f"train.min_workers: only Ray goes on with fewer workers, got {settings.min_workers}",
    )
    require(
        settings.validate_every == 0,
        "train.validate_every: only Ray validates beside a training, got "
        f"{settings.validate_every}; data.resident_validation is tracked at the end",
    )
    require(
        "://" not in settings.storage,
        f"train.storage: without Ray it is a folder of this machine, got {settings.storage}",
    )


def _context(config: ExperimentConfig) -> DistributedContext:
    """Find this process's rank and device, and meet the others."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if config.train.gpu and not torch.cuda.is_available():
        raise ConfigurationError("train.gpu: this machine has no CUDA device; set it to false")
    device = torch.device("cuda", local) if config.train.gpu else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    if "RANK" in os.environ:  # also alone: the exchange is then that of several
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return DistributedContext(rank=rank, world=world, device=device)


def main() -> int:
    """Train what the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dytrack_platform.training.local")
    parser.add_argument("recipe", help="YAML file over the schema of experiments")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    arguments = parser.parse_args()
    from dytrack_platform.config import parse_override

    try:
        config = load(arguments.recipe, dict(parse_override(text) for text in arguments.changes))
        _, tracker = train_local(config, lambda line: print(line, flush=True))  # noqa: T201
    except DyTrackError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    print(tracker)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())

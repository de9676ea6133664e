"""What runs inside Ray Train's processes: one worker, its callbacks, and validation beside it."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow.fs
import ray
import ray.train
import torch
from ray.train import Checkpoint, CheckpointUploadMode
from ray.train.torch import get_device
from ray.train.v2.api.validation_config import ValidationTaskConfig

from dytrack_platform.config import ExperimentConfig, resolve
from dytrack_platform.errors import DyTrackError, StorageError
from dytrack_platform.experiment.cluster.session import ANNOUNCES
from dytrack_platform.experiment.cluster.termination import Termination
from dytrack_platform.experiment.runs import provenance
from dytrack_platform.storage import files
from dytrack_platform.storage.patience import patience, telling_if_slow
from dytrack_platform.training import worker
from dytrack_platform.training.batches import Batch
from dytrack_platform.training.callbacks import Callbacks, Request, write_batch
from dytrack_platform.training.progress import Progress
from dytrack_platform.training.state import SEAL

PREFIX = "step_"
"""What the name of a checkpoint's folder begins with; the step follows in eight digits."""
_LOOK_EVERY_S = 0.5


class WorkerTerminated(RuntimeError):
    """A worker was told to end and wrote its checkpoint: Ray starts the workers anew."""


def work(settings: dict[str, Any]) -> None:
    """Run one worker inside Ray Train.

    An error of ours would only happen again: it goes to the channel, and the next group of workers
    finds it there and ends. Anything else reaches Ray, which replaces workers.
    """
    channel = settings["channel"]
    if ray.get(channel.status.remote()).refusal is not None:
        return
    try:
        _train(settings)
    except DyTrackError as error:
        ray.get(channel.refuse.remote(type(error), str(error)))
        if ray.train.get_context().get_world_size() > 1:
            raise  # the others may wait for this worker: only Ray can end them


def validate_beside(checkpoint: Checkpoint, **given: Any) -> dict[str, Any]:  # noqa: ANN401
    """Score a checkpoint on the validation pairs, in a task beside the training.

    Ray Train calls it with what :meth:`RayCallbacks.checkpoint` gave: the recipe and the step.
    """
    config = resolve(given["recipe"])
    with checkpoint.as_directory() as folder:
        device = torch.device("cuda" if config.train.gpu else "cpu")
        scores = worker.validate_saved(Path(folder), config, device)
    ray.get(ray.get_actor(given["channel_name"]).values.remote(given["step"], scores))
    return {"validated_step": given["step"], **scores}


def _train(settings: dict[str, Any]) -> None:
    config = resolve(settings["recipe"])
    train_context = ray.train.get_context()
    torch.set_num_threads(max(1, int(config.train.cpus_per_worker)))
    context = worker.DistributedContext(
        rank=train_context.get_world_rank(),
        world=train_context.get_world_size(),
        device=get_device(),
    )
    callbacks = RayCallbacks(config, settings, context.rank)
    address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    callbacks.say(
        f"worker {context.rank} of {context.world}: node {train_context.get_node_rank()} at "
        f"{address}, process {os.getpid()}"
    )
    kept = files.folders(settings["location"], PREFIX)
    notes = {"run_id": settings["run_id"]}
    with patience(callbacks.say):
        state = worker.train(config, callbacks, context, kept, files.local_copy, notes)
    if state.step < worker.steps_of(config) and not callbacks.stopping():
        raise WorkerTerminated(f"a worker was told to end; step {state.step} is saved")


class RayCallbacks(Callbacks):
    """Sends progress to the driver's channel and checkpoints to Ray Train."""

    def __init__(self, config: ExperimentConfig, settings: dict[str, Any], rank: int) -> None:
        self._config = config
        self._settings = settings
        self._channel = settings["channel"]
        self._rank = rank
        self._checkpoints = 0
        self._drained = os.environ.get(ANNOUNCES) == "0"  # no node will be taken away
        self._looked: ray.ObjectRef[Any] | None = None
        self._look_at = 0.0
        self._stopping = False

    def progress(self, progress: Progress) -> None:
        """Post it, and how much memory this worker has."""
        load = provenance.process_load().items()
        values = {f"system/worker{self._rank}/{name}": value for name, value in load}
        self._channel.values.remote(progress.step, values)
        if self._rank == 0:
            self._channel.progress.remote(progress)

    def sample_images(self, png: bytes, step: int) -> None:
        """Post it."""
        self._channel.sample_images.remote(step, png)

    def say(self, sentence: str) -> None:
        """Post it."""
        self._channel.say.remote(sentence)

    def keep_batch(self, batch: Batch, step: int) -> str:
        """Write the batch beside the checkpoints."""
        return write_batch(self._settings["location"], batch, step, self._rank)

    def request(self, step: int) -> Request:
        """Look at the channel without waiting for it, at this process's signals and at Ray."""
        now = time.monotonic()
        if self._looked is None and now >= self._look_at:
            # The answer is looked for in a later step: waiting for the channel here would cost
            # every step a round trip.
            self._looked, self._look_at = self._channel.status.remote(), now + _LOOK_EVERY_S
        elif self._looked is not None and ray.wait([self._looked], timeout=0)[0]:
            self._stopping = ray.get(self._looked).stopping
            self._looked = None
        # All workers ask Ray at the same steps, whatever else they want: it is a barrier.
        announced = False
        if not self._drained and step % self._config.train.report_steps == 0:
            announced = self._drained = ray.train.get_preemption_info() is not None
        if self._stopping or Termination.told:
            return Request.STOP
        return Request.CHECKPOINT if announced else Request.NOTHING

    def stopping(self) -> bool:
        """Say whether the command was told to end."""
        return bool(ray.get(self._channel.status.remote()).stopping)

    def checkpoint(self, folder: Path, metrics: dict[str, float]) -> None:
        """Hand this worker's part of a checkpoint to Ray Train, which merges the parts."""
        # The step names the folder, so that a step done again after a crash replaces its own.
        step = int(metrics["step"])
        settings = self._config.train
        self._checkpoints += 1
        validation: bool | ValidationTaskConfig = False
        if settings.validate_every and self._checkpoints % settings.validate_every == 0:
            given = {name: self._settings[name] for name in ("recipe", "channel_name")}
            given["step"] = step
            validation = ValidationTaskConfig(fn_kwargs=given)
        upload = CheckpointUploadMode.ASYNC if settings.async_checkpoints else None
        ray.train.report(
            metrics,
            checkpoint=Checkpoint.from_directory(folder),
            checkpoint_dir_name=f"{PREFIX}{step:08d}",
            checkpoint_upload_mode=upload or CheckpointUploadMode.SYNC,
            delete_local_checkpoint_after_upload=True,
            checkpoint_upload_fn=self._upload,
            validation=validation,
        )

    def _upload(self, checkpoint: Checkpoint, name: str) -> Checkpoint:
        """Copy a checkpoint's files into the run's folder, the seal last."""
        kept = ray.train.get_context().get_storage()
        target = f"{kept.experiment_fs_path}/{name}"
        # As people name it: pyarrow's paths have no scheme.
        shown = f"s3://{target}" if kept.storage_filesystem.type_name == "s3" else target
        files = sorted(
            (path for path in Path(checkpoint.path).rglob("*") if path.is_file()),
            # The seal says what the other files must be, so it must not be there before them.
            key=lambda path: path.name == SEAL,
        )
        try:
            with telling_if_slow(f"{shown}: the checkpoint", "written", self.say):
                for path in files:
                    beside = f"{target}/{path.relative_to(checkpoint.path)}"
                    kept.storage_filesystem.create_dir(os.path.dirname(beside))  # noqa: PTH120
                    pyarrow.fs.copy_files(
                        str(path),
                        beside,
                        source_filesystem=pyarrow.fs.LocalFileSystem(),
                        destination_filesystem=kept.storage_filesystem,
                    )
        except OSError as error:
            shutil.rmtree(checkpoint.path, ignore_errors=True)
            sentence = (
                f"{shown}: the checkpoint cannot be written: {error}; earlier ones are whole: "
                "free space and run the same command again"
            )
            ray.get(self._channel.refuse.remote(StorageError, sentence))
            raise
        return Checkpoint(path=target, filesystem=kept.storage_filesystem)

"""One training worker, from configuration to a finished tracker, whoever started it.

Ray Train, a Tune trial and a test call the same function; what differs is where the worker's
progress and checkpoints go; that is the :class:`Callbacks` they pass in.
"""

import copy
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dytrack_model import checkpoint as tracker_files
from dytrack_model.config import ModelConfig
from dytrack_model.policy import OperatingPoint
from dytrack_platform.config import DataConfig, ExperimentConfig
from dytrack_platform.errors import CheckpointError, ConfigurationError, DataError, StorageError
from dytrack_platform.training import distributed, memory, rng_state, sample_images, validation
from dytrack_platform.training import state as state_files
from dytrack_platform.training.batches import Batch, Stream
from dytrack_platform.training.callbacks import Callbacks
from dytrack_platform.training.distributed import SINGLE_PROCESS, DistributedContext
from dytrack_platform.training.ema import EMA
from dytrack_platform.training.initial import load_initial, mix_with_initial
from dytrack_platform.training.loop import Writer, run
from dytrack_platform.training.objective import TrainModule
from dytrack_platform.training.optim import optimizer
from dytrack_platform.training.points import choose_points
from dytrack_platform.training.progress import Progress
from dytrack_platform.training.state import TrainingState

if TYPE_CHECKING:
    from dytrack_platform.datasets.loading.stream import PairBatch

__all__ = ["Callbacks", "DistributedContext", "check", "new_state", "train", "validate"]

Subset = Literal["train", "validation"]
Floats = NDArray[np.float64]
Fetch = Callable[[str], AbstractContextManager[Path]]
"""Returns a checkpoint's location as a folder on this machine."""


def here(location: str) -> AbstractContextManager[Path]:
    """Return a local folder as it is."""
    return nullcontext(Path(location))


def new_state(
    config: ExperimentConfig, context: DistributedContext = SINGLE_PROCESS
) -> TrainingState:
    """Make seeded weights and an optimiser; the same ones on every worker.

    Raises:
        CheckpointError: ``train.init_from`` does not fit.
    """
    module, initial = _new_module(config)
    distributed.arrange(module, config.train, context)
    scaling = config.train.precision == "fp16"
    return TrainingState(
        module=module,
        optimizer=optimizer(module, config.train),
        scaler=torch.amp.GradScaler(context.device.type, enabled=scaling),
        ema=EMA(module, config.train.ema) if config.train.ema else None,
        notes={"initial": initial} if initial else {},
    )


def _new_module(config: ExperimentConfig) -> tuple[TrainModule, list[str]]:
    """Make seeded weights, and say what became of the initial ones; nothing where there are none.

    Weights are made on every worker and not sent: the same seed makes the same ones.
    """
    torch.manual_seed(config.seed)
    module = TrainModule(
        config.model, config.loss, config.distillation, config.train.sampled_placements
    )
    if config.train.init_from is None:
        return module, []
    return module, list(load_initial(module.network, config.train.init_from))


def check(config: ExperimentConfig) -> list[str]:
    """Open the data and build the network, so that a mistake is told before workers start.

    Returns:
        What became of the initial weights, in sentences; none where there are none.

    Raises:
        ConfigurationError: The backbone cannot be built, or none is given to freeze.
        CheckpointError: The initial weights do not fit.
        DataError: A prepared folder is missing, damaged, or smaller than a batch.
    """
    if config.train.freeze_backbone and config.train.init_from is None:
        raise ConfigurationError(
            "train.freeze_backbone: freezes weights that nobody trained; name a tracker or "
            "backbone weights in train.init_from"
        )
    if config.train.initial_share and config.train.init_from is None:
        raise ConfigurationError(
            "train.initial_share: mixes in the weights that training starts from; name a tracker "
            "or backbone weights in train.init_from, or set it to 0"
        )
    # The check must leave no trace in the random state that training starts from.
    with torch.random.fork_rng(devices=[]):
        _, initial = _new_module(config)
    if config.data.resident:
        memory.check(config.data)
        return initial
    # Only prepared folders need Parquet.
    from dytrack_platform.datasets.loading.sources import subset_rows

    subsets: tuple[Subset, ...] = ("train", "validation")
    for subset in subsets:
        _stream(config, SINGLE_PROCESS, subset)
    clips = sum(len(rows) for rows in subset_rows(config.data, config.model, "train"))
    if clips < config.train.batch_size:
        raise DataError(
            f"data.train: holds {clips} clips for training, fewer than train.batch_size "
            f"{config.train.batch_size}: a batch would show the same clip twice; prepare more, or "
            "lower train.batch_size"
        )
    return initial


def train(
    config: ExperimentConfig,
    callbacks: Callbacks,
    context: DistributedContext = SINGLE_PROCESS,
    candidates: Sequence[str] = (),
    fetch: Fetch = here,
    notes: dict[str, str] | None = None,
    writer: Writer | None = None,
) -> TrainingState:
    """Train to the end, or on from the newest checkpoint that is whole.

    Args:
        config: The experiment.
        callbacks: Takes progress and checkpoints.
        context: This worker's rank, the number of workers, and its device.
        candidates: Checkpoints to continue from, newest first.
        fetch: Makes a local folder of one of them.
        notes: Plain JSON to keep with the state, as the MLflow run.
        writer: What is done at checkpoints, in place of writing and, at the end, validating them.

    Returns:
        The state; its step says whether the end was reached.

    Raises:
        TrainingError: The loss is not finite.
        DataError: A prepared folder cannot be used.
        CheckpointError: This worker cannot read what the first one continues from.
    """
    state = new_state(config, context)
    _restore_newest(config, state, candidates, fetch, context, callbacks)
    state.notes |= notes or {}
    stream = _stream(config, context, "train")
    module = distributed.wrapped(state.module, config.train, context)
    steps = config.train.epochs * stream.steps_per_epoch
    writer = writer or _Writer(config, callbacks, context, steps)
    try:
        run(config, state, module, stream, callbacks, writer, context.device)
    finally:
        stream.close()
    return state


def steps_of(config: ExperimentConfig) -> int:
    """Count the optimiser steps of an experiment."""
    return config.train.epochs * max(1, config.data.pairs_per_epoch // config.train.batch_size)


def validate(
    config: ExperimentConfig, module: TrainModule, device: torch.device
) -> tuple[dict[str, float], tuple[OperatingPoint, ...]]:
    """Score every exit on the validation pairs, and on the validation videos where there are any.

    Returns:
        ``val/exit2/iou``, ``val/point/fast/gmacs`` and the like, and the operating points that the
        scores suggest.
    """
    scores = validation_scores(config, module, device)
    summary, tracks = validation.summarise(config.model.exits, scores), None
    if config.data.resident_validation:
        tracked, tracks = memory.closed_loop(config, module, device)
        summary |= tracked
    chosen, found = choose_points(module.network, scores, tracks)
    return {f"val/{name}": value for name, value in summary.items()} | found, chosen


def validation_scores(
    config: ExperimentConfig, module: TrainModule, device: torch.device
) -> validation.Scores:
    """Return (E, N) predicted and (E, N) true IoU on the validation pairs."""
    stream = _stream(config, DistributedContext(device=device), "validation")
    try:
        batches = _first(stream, config.data.validation_pairs)
        return validation.score(module, batches, device)
    finally:
        stream.close()


def validation_outputs(
    config: ExperimentConfig, module: TrainModule, device: torch.device
) -> tuple[validation.Scores, list[str]]:
    """Return (E, N) predicted and true IoU on the validation pairs, and each pair's sequence.

    Batches are decoded once for trainings that see the same pairs in one process.

    Raises:
        ConfigurationError: Pairs drawn from pictures in memory belong to no sequence.
    """
    if config.data.resident:
        raise ConfigurationError(
            "data.resident_validation: is empty, and pairs from pictures in memory belong to no "
            "sequence; name sequences to validate on"
        )
    sizes = memory.sizes_of(config.model)
    batches = _validation_batches(config.data, sizes, config.seed, config.train.batch_size)
    names = [name for batch in batches for name in batch.sequences]
    return validation.score(module, batches, device), names


def placement_outputs(
    config: ExperimentConfig,
    module: TrainModule,
    device: torch.device,
    placements: Sequence[Sequence[int]],
) -> tuple[list[tuple[Floats, Floats]], list[str]]:
    """Score placements of a network's exits on the validation pairs; blocks run once for all.

    Args:
        config: The recipe of prepared folders.
        module: Holds the network with all exits.
        device: Where the module is.
        placements: Depths of the exits of each.

    Returns:
        For each placement (K, N) predicted and true IoU, and (N,) the pairs' sequences.
    """
    sizes = memory.sizes_of(config.model)
    batches = _validation_batches(config.data, sizes, config.seed, config.train.batch_size)
    wanted = [[config.model.exits.index(depth) for depth in exits] for exits in placements]
    outputs = validation.score_placements(module.network, batches, device, wanted)
    return outputs, [name for batch in batches for name in batch.sequences]


@lru_cache(maxsize=1)
def _validation_batches(
    data: DataConfig, sizes: ModelConfig, seed: int, batch_size: int
) -> tuple["PairBatch", ...]:
    from dytrack_platform.datasets.loading.stream import PairStream

    stream = PairStream(data, sizes, seed=seed, batch_size=batch_size, subset="validation")
    try:
        return tuple(_first(stream, data.validation_pairs))  # type: ignore[arg-type]
    finally:
        stream.close()


def validate_saved(
    folder: Path, config: ExperimentConfig, device: torch.device
) -> dict[str, float]:
    """Score the tracker inside of a checkpoint folder on the validation pairs."""
    module = TrainModule(config.model, config.loss, config.distillation)
    tracker_files.load_weights(module.network, folder / state_files.TRACKER / tracker_files.WEIGHTS)
    return validate(config, module.to(device), device)[0]


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes checkpoints; the last one is validated and carries operating points."""

    config: ExperimentConfig
    callbacks: Callbacks
    context: DistributedContext
    steps: int

    def checkpoint(self, state: TrainingState, progress: Progress) -> None:
        metrics = {"step": float(state.step), "loss": progress.losses["loss"]}
        module = state_files.trained(state, self.config, self.context)
        tensors = state_files.gather(state, self.context)
        # On this machine first: a checkpoint reaches the shared storage as a whole, from Ray's
        # upload.
        folder = Path(tempfile.mkdtemp(prefix="dytrack-"))
        try:
            rng_state.save(folder, self.context.rank)
            if self.context.rank == 0:
                if state.step == self.steps:
                    module = self._mixed(module)
                    scores, chosen = validate(self.config, module, self.context.device)
                    metrics |= scores
                    state.notes["validation"] = scores
                    about = {"experiment": self.config.name, "step": state.step, **metrics}
                    where = folder / state_files.TRACKER
                    tracker_files.save(where, module.network, chosen, about)
                state_files.save(folder, state, self.config, tensors, module, self.context.world)
            self.callbacks.checkpoint(folder, metrics)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise StorageError(
                f"the checkpoint of step {state.step} cannot be written: {error}; earlier ones are "
                "whole: free space and run the same command again"
            ) from error

    def _mixed(self, module: TrainModule) -> TrainModule:
        """Return what is saved of a finished training; the module that trains is not changed."""
        start, share = self.config.train.init_from, self.config.train.initial_share
        if start is None or share == 0:
            return module
        module = copy.deepcopy(module)
        mix_with_initial(module.network, start, share)
        return module

    def sample_images(self, state: TrainingState) -> None:
        count = self.config.train.sample_images
        if not count:
            return
        module = state_files.trained(state, self.config, self.context)
        if self.context.rank == 0:
            # On the training's device: there lie the images that it keeps in memory.
            single = DistributedContext(device=self.context.device)
            stream = _stream(self.config, single, "validation")
            batch = next(stream.batches(0))
            stream.close()
            png = sample_images.sheet(module, batch, count, self.context.device)
            self.callbacks.sample_images(png, state.step)


def _restore_newest(
    config: ExperimentConfig,
    state: TrainingState,
    candidates: Sequence[str],
    fetch: Fetch,
    context: DistributedContext,
    callbacks: Callbacks,
) -> None:
    """Continue from the newest checkpoint that is whole; say which ones are not.

    The first worker chooses, so that all of them continue from the same one.
    """
    chosen, refused = -1, []
    if context.rank == 0:
        for number, location in enumerate(candidates):
            try:
                with fetch(location) as folder:
                    state_files.verify(folder)
            except CheckpointError as error:
                refused.append(str(error))
                callbacks.say(f"a checkpoint cannot be used, the one before it is tried: {error}")
                continue
            chosen = number
            break
    # Not the newest that each finds whole: on storage that is slow to agree they would differ.
    chosen = distributed.first_says(chosen, context.device)
    if chosen >= 0:
        with fetch(candidates[chosen]) as folder:
            state_files.restore(folder, state, context, config.seed)
        if context.rank == 0:
            callbacks.say(f"continuing from step {state.step} ({candidates[chosen]})")
    elif refused:
        callbacks.say("no checkpoint can be used: starting from step 0")
    state.notes["refused_checkpoints"] = refused


def _stream(config: ExperimentConfig, context: DistributedContext, subset: Subset) -> Stream:
    if config.data.resident:
        return memory.stream(config, context, subset)
    from dytrack_platform.datasets.loading.stream import PairStream

    return PairStream(
        config.data,
        config.model,
        seed=config.seed,
        batch_size=config.train.batch_size,
        rank=context.rank,
        world=context.world,
        subset=subset,
        pin_memory=context.device.type == "cuda",
    )


def _first(stream: Stream, pairs: int) -> Iterator[Batch]:
    """Yield whole batches until at least ``pairs`` pairs were seen or the stream ends."""
    seen = 0
    for batch in stream.batches(0):
        yield batch
        seen += len(batch.boxes_cxcywh)
        if seen >= pairs:
            return

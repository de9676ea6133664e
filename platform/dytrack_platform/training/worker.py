"""One training worker, from configuration to a finished tracker, whoever started it.

Ray Train, a Tune trial and a test call the same function; what differs is where the worker's
progress and checkpoints go, and that is the :class:`Outlet` they pass in.
"""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import nn

from dytrack_model import checkpoint as tracker_files
from dytrack_model.policy import OperatingPoint
from dytrack_model.pretrained import load_backbone
from dytrack_platform.config import ExperimentConfig
from dytrack_platform.datasets.pairs import PairStream
from dytrack_platform.errors import CheckpointError
from dytrack_platform.training import state as state_files
from dytrack_platform.training import validation
from dytrack_platform.training.loop import Batch, Hooks, Progress, run
from dytrack_platform.training.objective import Trainable
from dytrack_platform.training.optim import optimizer
from dytrack_platform.training.state import TrainingState

Part = Literal["train", "validation"]


class Outlet(Protocol):
    """Where a worker's progress and checkpoints go."""

    def progress(self, progress: Progress) -> None:
        """Take a progress report."""
        ...

    def checkpoint(self, folder: Path | None, metrics: dict[str, float]) -> None:
        """Take a checkpoint folder; every worker calls this, all but the first with ``None``."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A worker's place among the workers."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def new_state(config: ExperimentConfig, device: torch.device) -> TrainingState:
    """Make seeded weights and an optimiser; the same ones on every worker."""
    torch.manual_seed(config.seed)
    module = Trainable(config.model, config.loss, config.distillation)
    if config.train.initial is not None:
        load_backbone(module.network, config.train.initial)
    module.to(device)
    return TrainingState(module=module, optimizer=optimizer(module, config.train))


def check(config: ExperimentConfig) -> None:
    """Open the data and build the network, so that a mistake is told before workers start.

    Raises:
        ConfigurationError: The backbone cannot be built.
        CheckpointError: The initial weights do not fit.
        DataError: A prepared folder is missing, damaged, or smaller than a batch.
    """
    new_state(config, torch.device("cpu"))
    parts: tuple[Part, ...] = ("train", "validation")
    for part in parts:
        _stream(config, Place(), part)


def train(
    config: ExperimentConfig,
    outlet: Outlet,
    place: Place = Place(),
    candidates: Iterable[Path] = (),
) -> TrainingState:
    """Train to the end, or on from the newest checkpoint that is whole.

    Args:
        config: The experiment.
        outlet: Takes progress and checkpoints.
        place: This worker's rank, the number of workers, and its device.
        candidates: Checkpoint folders to continue from, newest first.

    Raises:
        TrainingError: The loss is not finite.
        DataError: A prepared folder cannot be used.
    """
    state = new_state(config, place.device)
    _restore_newest(state, candidates)
    stream = _stream(config, place, "train")
    module: nn.Module = state.module
    if place.world > 1:
        on_gpu = place.device.type == "cuda"
        module = nn.parallel.DistributedDataParallel(
            module,
            device_ids=[place.device] if on_gpu else None,
            static_graph=True,
            gradient_as_bucket_view=True,
        )
    ending = _Ending(config, outlet, place, config.train.epochs * stream.steps_per_epoch)
    hooks = Hooks(report=outlet.progress, checkpoint=ending.checkpoint)
    run(config, state, module, stream, hooks, place.device)
    return state


def validate(
    config: ExperimentConfig, state: TrainingState, device: torch.device
) -> tuple[dict[str, float], tuple[OperatingPoint, ...]]:
    """Score every exit on the validation pairs.

    Returns:
        ``val/exit2/iou`` and the like, and the operating points that the scores suggest.
    """
    scores = validation_scores(config, state, device)
    summary = validation.summarise(config.model.exits, scores)
    metrics = {f"val/{name}": value for name, value in summary.items()}
    return metrics, validation.operating_points(scores[0])


def validation_scores(
    config: ExperimentConfig, state: TrainingState, device: torch.device
) -> validation.Scores:
    """Give (E, N) predicted and (E, N) true IoU on the validation pairs."""
    batches = _first(
        _stream(config, Place(device=device), "validation"), config.data.validation_pairs
    )
    return validation.score(state.module, batches, device)


@dataclass(frozen=True, slots=True)
class _Ending:
    """Writes checkpoints; the last one is validated and carries operating points."""

    config: ExperimentConfig
    outlet: Outlet
    place: Place
    steps: int

    def checkpoint(self, state: TrainingState, progress: Progress) -> None:
        metrics = {"step": float(state.step), "loss": progress.losses["loss"]}
        if self.place.rank != 0:
            self.outlet.checkpoint(None, metrics)
            return
        with tempfile.TemporaryDirectory(prefix="dytrack-") as name:
            folder = Path(name)
            points: tuple[OperatingPoint, ...] = ()
            if state.step == self.steps:
                scores, points = validate(self.config, state, self.place.device)
                metrics |= scores
                state.notes["validation"] = scores
            state_files.save(folder, state, self.config)
            if points:
                notes = {"experiment": self.config.name, "step": state.step, **metrics}
                where = folder / state_files.TRACKER
                tracker_files.save(where, state.module.network, points, notes)
            self.outlet.checkpoint(folder, metrics)


def _restore_newest(state: TrainingState, candidates: Iterable[Path]) -> None:
    """Continue from the first checkpoint that can be read; say which ones could not."""
    refused = []
    for folder in candidates:
        try:
            state_files.restore(folder, state)
        except CheckpointError as error:
            refused.append(str(error))
            continue
        break
    state.notes["refused_checkpoints"] = refused


def _stream(
    config: ExperimentConfig, place: Place, part: Literal["train", "validation"]
) -> PairStream:
    return PairStream(
        config.data,
        config.model,
        seed=config.seed,
        batch_size=config.train.batch_size,
        rank=place.rank,
        world=place.world,
        part=part,
    )


def _first(stream: PairStream, pairs: int) -> Iterator[Batch]:
    """Give whole batches until at least ``pairs`` pairs were seen or the stream ends."""
    seen = 0
    for batch in stream.batches(0):
        yield batch
        seen += len(batch.boxes_cxcywh)
        if seen >= pairs:
            return

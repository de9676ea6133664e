"""The whole state of training on disk: safetensors and JSON, sealed by its last file.

A checkpoint is a folder::

    tracker/model.safetensors, tracker/tracker.json   a tracker that can be used as it is
    state.safetensors                                 distiller, optimiser; with an average of the
                                                      weights also the weights themselves, because
                                                      the tracker then holds the average
    workers/rank_00000.safetensors …                  random states, one file for each worker
    state.json                                        step, scaler, configuration, metrics so far,
                                                      notes, and size and checksum of the others

``state.json`` is written last: a folder without it, or whose files differ from what it says, was
not finished or was damaged later, and is never continued from.
"""

import copy
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dytrack_model import checkpoint
from dytrack_model.pretrained.files import read_tensors
from dytrack_platform.config import ExperimentConfig, to_dict
from dytrack_platform.errors import CheckpointError
from dytrack_platform.storage.atomic import replacing
from dytrack_platform.training import rng_state
from dytrack_platform.training.distributed import (
    SINGLE_PROCESS,
    DistributedContext,
    fill,
    is_spread,
    whole,
)
from dytrack_platform.training.ema import EMA
from dytrack_platform.training.objective import TrainModule

TRACKER = "tracker"
SEAL = "state.json"
_TENSORS = "state.safetensors"


@dataclass(kw_only=True, slots=True)
class TrainingState:
    """Everything that a step changes."""

    module: TrainModule
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    """Scales the loss in fp16; does nothing otherwise."""
    ema: EMA | None = None
    step: int = 0
    """Optimiser steps done, those that were left out included."""
    skipped: int = 0
    """Batches left out because they were not finite."""
    history: list[dict[str, float]] = field(default_factory=list)
    """Mean losses of each finished epoch."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Plain JSON that travels along: the MLflow run, the best score."""


def trained(
    state: TrainingState, config: ExperimentConfig, context: DistributedContext = SINGLE_PROCESS
) -> TrainModule:
    """Return the module to validate and to save: whole, and with averaged weights where there are.

    All workers must call it where the weights are spread over them. The first one alone needs what
    comes out; to the others it may be the module that trains.
    """
    network = state.module.network
    if not _spread(state) and (state.ema is None or context.rank):
        return state.module
    tensors = {k: whole(v).detach() for k, v in state.module.state_dict().items()}
    for name, average in (state.ema.values if state.ema else {}).items():
        tensors[name] = whole(average)
    if context.rank:  # its part in bringing the weights together is done
        return state.module
    with torch.random.fork_rng(devices=[]):  # making it must not move training's random state
        plain = TrainModule(config.model, config.loss, config.distillation)
    plain.load_state_dict(tensors)
    return plain.to(next(network.parameters()).device)


def _spread(state: TrainingState) -> bool:
    """Whether each worker holds a part of the weights only."""
    return any(map(is_spread, state.module.network.parameters()))


def gather(state: TrainingState, context: DistributedContext = SINGLE_PROCESS) -> dict[str, Tensor]:
    """Return what goes into ``state.safetensors``, whole.

    All workers must call it, for parts may be spread over them; the first one alone writes, so that
    the others get nothing and copy nothing.
    """
    if context.rank and not _spread(state):
        return {}
    module = state.module
    tensors = {f"distiller.{k}": whole(v) for k, v in module.distiller.state_dict().items()}
    if state.ema is not None:
        tensors |= {f"network.{k}": whole(v) for k, v in module.network.state_dict().items()}
        averaged = state.ema.values.items()
        tensors |= {f"average.{k}": whole(v) for k, v in averaged if k.startswith("distiller.")}
    # The step count of AdamW is among them: without it bias correction would start again, and the
    # first steps after a restart would be too long.
    for index, values in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": whole(value) for name, value in values.items()}
    if context.rank:
        return {}
    return {name: value.detach().contiguous().clone() for name, value in tensors.items()}


def save(
    folder: str | Path,
    state: TrainingState,
    config: ExperimentConfig,
    tensors: dict[str, Tensor],
    network: TrainModule,
    world: int,
) -> None:
    """Write the first worker's part into an existing folder; the seal comes last.

    Args:
        folder: Where to.
        state: The state.
        config: The experiment.
        tensors: What :func:`gather` gave, each whole (*).
        network: What :func:`trained` gave.
        world: Workers that each write their random states beside it.
    """
    folder = Path(folder)
    if not (folder / TRACKER).is_dir():
        notes = {"experiment": config.name, "step": state.step, "recipe": to_dict(config)}
        checkpoint.save(folder / TRACKER, network.network, notes=notes)
    save_file(tensors, folder / _TENSORS)
    names = [_TENSORS, f"{TRACKER}/{checkpoint.WEIGHTS}", f"{TRACKER}/{checkpoint.DESCRIPTION}"]
    description = {
        "step": state.step,
        "skipped": state.skipped,
        "scaler": state.scaler.state_dict(),
        "recipe": to_dict(config),
        "history": state.history,
        "notes": state.notes,
        "workers": world,
        # Not the random states: other workers may still be writing them.
        "files": {name: _digest(folder / name) for name in names},
    }
    with replacing(folder / SEAL) as beside:
        beside.write_text(json.dumps(description, indent=2) + "\n")


def verify(folder: str | Path) -> dict[str, Any]:
    """Read a checkpoint's description and compare its files with it.

    Raises:
        CheckpointError: It was not finished, or is damaged.
    """
    folder = Path(folder)
    description = describe(folder)
    for name, expected in description["files"].items():
        path = folder / name
        if not path.is_file() or _digest(path) != expected:
            found = path.stat().st_size if path.is_file() else "no"
            raise CheckpointError(
                f"{path}: damaged or missing: {found} bytes with another checksum, expected "
                f"{expected['bytes']} bytes"
            )
    for rank in range(description["workers"]):
        path = folder / rng_state.file_of(rank)
        if not path.is_file():
            raise CheckpointError(f"{path}: missing: worker {rank} had not finished writing")
    return description


def restore(
    folder: str | Path,
    state: TrainingState,
    context: DistributedContext = SINGLE_PROCESS,
    seed: int = 0,
) -> None:
    """Read a checkpoint into a state made from the same configuration.

    Raises:
        CheckpointError: A file is missing or damaged, or belongs to another model.
    """
    folder = Path(folder)
    description = describe(folder)
    try:
        tensors = load_file(folder / _TENSORS)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder / _TENSORS}: damaged or missing: {error}") from error
    saved = read_tensors(folder / TRACKER / checkpoint.WEIGHTS)
    network = _part(tensors, "network.") or saved
    values = {f"network.{k}": v for k, v in network.items()}
    values |= {f"distiller.{k}": v for k, v in _part(tensors, "distiller.").items()}
    _fill_all(state.module.state_dict(), values, folder)
    if state.ema is not None:
        # With an average the tracker beside the state holds the averaged network; the distiller's
        # average is no part of a tracker and lies in the state.
        averages = {f"network.{k}": v for k, v in saved.items()} | _part(tensors, "average.")
        kept = {k: v for k, v in averages.items() if k in state.ema.values}
        _fill_all(state.ema.values, kept, folder)
    _fill_optimizer(state.optimizer, _part(tensors, "optimizer."))
    state.scaler.load_state_dict(description["scaler"])
    state.step = int(description["step"])
    state.skipped = int(description["skipped"])
    state.history = list(description["history"])
    state.notes = dict(description["notes"])
    rng_state.restore(folder, context.rank, seed + state.step)


def describe(folder: str | Path) -> dict[str, Any]:
    """Read the description that seals a checkpoint.

    Raises:
        CheckpointError: There is none, or it is damaged: the checkpoint was not finished.
    """
    path = Path(folder) / SEAL
    keys = ("step", "skipped", "scaler", "recipe", "history", "notes", "workers", "files")
    try:
        description: dict[str, Any] = json.loads(path.read_text())
        return {key: description[key] for key in keys}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: missing or damaged: {error}") from error


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _fill_all(targets: dict[str, Tensor], values: dict[str, Tensor], folder: Path) -> None:
    different = sorted(set(targets) ^ set(values)) or [
        name for name, target in targets.items() if target.shape != values[name].shape
    ]
    if different:
        raise CheckpointError(
            f"{folder}: is of another model: {len(different)} tensors differ, {different[0]} first"
        )
    for name, target in targets.items():
        fill(target, values[name])


def _fill_optimizer(optimizer: torch.optim.Optimizer, values: dict[str, Tensor]) -> None:
    """Give every parameter its moments, laid out as the parameter is (fused steps need that)."""
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in values.items():
        index, _, key = name.partition(".")
        moments.setdefault(int(index), {})[key] = value
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for place, named in moments.items():
        for key, value in named.items():
            if value.ndim:
                like = torch.empty_like(parameters[place], requires_grad=False)
                fill(like, value)
                named[key] = like
    # Groups keep their rates, which follow from the configuration; only the moments come from disk.
    full = copy.copy(optimizer.state_dict())
    optimizer.load_state_dict({**full, "state": moments})


def _digest(path: Path) -> dict[str, int]:
    """Return size and CRC-32 of a file: enough to see damage, and fast."""
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            crc = zlib.crc32(piece, crc)
    return {"bytes": path.stat().st_size, "crc32": crc}

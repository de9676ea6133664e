"""The whole state of training on disk: safetensors and JSON, written beside and then renamed.

A checkpoint is a folder::

    tracker/model.safetensors, tracker/tracker.json   a tracker that can be used as it is
    state.safetensors                                 distiller and optimiser
    state.json                                        step, configuration, best score, notes
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dytrack_model import checkpoint
from dytrack_platform.config import ExperimentConfig, to_dict
from dytrack_platform.errors import CheckpointError
from dytrack_platform.training.objective import Trainable

TRACKER = "tracker"
_TENSORS = "state.safetensors"
_DESCRIPTION = "state.json"


@dataclass(kw_only=True, slots=True)
class TrainingState:
    """Everything that a step changes."""

    module: Trainable
    optimizer: torch.optim.Optimizer
    step: int = 0
    """Optimiser steps done."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Plain JSON that travels along: the MLflow run, the best score."""


def save(folder: str | Path, state: TrainingState, config: ExperimentConfig) -> None:
    """Write the state into an existing empty folder; ``state.json`` comes last and seals it."""
    folder = Path(folder)
    notes = {"experiment": config.name, "step": state.step, "recipe": to_dict(config)}
    checkpoint.save(folder / TRACKER, state.module.network, notes=notes)
    tensors = {f"distiller.{k}": v for k, v in state.module.distiller.state_dict().items()}
    for index, values in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / _TENSORS)
    description = {"step": state.step, "recipe": to_dict(config), "notes": state.notes}
    beside = folder / (_DESCRIPTION + ".part")
    beside.write_text(json.dumps(description, indent=2) + "\n")
    beside.rename(folder / _DESCRIPTION)


def restore(folder: str | Path, state: TrainingState) -> None:
    """Read a checkpoint into a state made from the same configuration.

    Raises:
        CheckpointError: A file is missing or damaged, or belongs to another model.
    """
    folder = Path(folder)
    description = describe(folder)
    checkpoint.load_weights(state.module.network, folder / TRACKER / checkpoint.WEIGHTS)
    try:
        tensors = load_file(folder / _TENSORS)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder / _TENSORS}: damaged or missing: {error}") from error
    distiller = {
        name.removeprefix("distiller."): value
        for name, value in tensors.items()
        if name.startswith("distiller.")
    }
    state.module.distiller.load_state_dict(distiller)
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            moments.setdefault(int(index), {})[key] = value
    full = state.optimizer.state_dict()
    state.optimizer.load_state_dict({**full, "state": moments})
    state.step = int(description["step"])
    state.notes = dict(description["notes"])


def describe(folder: str | Path) -> dict[str, Any]:
    """Read the description that seals a checkpoint.

    Raises:
        CheckpointError: There is none, or it is damaged: the checkpoint was not finished.
    """
    path = Path(folder) / _DESCRIPTION
    try:
        description: dict[str, Any] = json.loads(path.read_text())
        return {key: description[key] for key in ("step", "recipe", "notes")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: missing or damaged: {error}") from error

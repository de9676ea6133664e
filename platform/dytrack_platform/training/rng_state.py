"""The random states of a worker, as tensors and JSON that a checkpoint keeps."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from dytrack_platform.errors import CheckpointError

_FOLDER = "workers"


def file_of(rank: int) -> str:
    """Name a worker's file inside of a checkpoint."""
    return f"{_FOLDER}/rank_{rank:05d}.safetensors"


def save(folder: Path, rank: int) -> None:
    """Write the states of Python's, numpy's and torch's generators of this process."""
    path = folder / file_of(rank)
    path.parent.mkdir(exist_ok=True)
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    version, words, gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002  (others' code may draw from it)
    described = {
        "python": json.dumps([version, list(words), gauss]),
        "numpy": json.dumps(numpy_state, default=lambda array: array.tolist()),
    }
    save_file(tensors, path, metadata=described)


def restore(folder: Path, rank: int, seed: int) -> None:
    """Put the states back; a worker that was not there before starts its own from ``seed``.

    Raises:
        CheckpointError: The file is damaged.
    """
    path = folder / file_of(rank)
    if not path.is_file():
        _seed(seed + rank)
        return
    try:
        tensors, described = load_file(path), _metadata(path)
        version, words, gauss = described["python"]
        numpy_state = described["numpy"]
        numpy_state["state"]["key"] = np.array(numpy_state["state"]["key"], np.uint32)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged: {error}") from error
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(numpy_state)  # noqa: NPY002
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)


def _metadata(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        return {key: json.loads(value) for key, value in file.metadata().items()}

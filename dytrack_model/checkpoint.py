"""A saved tracker: a folder with ``model.safetensors`` and ``tracker.json``. Never a pickle.

``tracker.json`` holds the configuration, the operating points and what made them; the weights
lie beside it. Both are written under other names first and then renamed, so that a half written
tracker is never taken for one.

Weights lie there as they were trained, or smaller: in half precision, or in 8 bits with a scale for
each row of a matrix. They are read into single precision whatever they lie in.

Format 2 renamed what format 1 called otherwise: two parts of the network, and the kinds of IoU
token. Trackers of format 1 are translated while they are read.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from dytrack_model.config import RENAMED_IOU_TOKENS, ModelConfig, require
from dytrack_model.errors import CheckpointError, ConfigurationError
from dytrack_model.folders import SHIPPED, write_folder
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import OperatingPoint
from dytrack_model.pretrained.files import read_tensors

FORMAT = 2
Storage = Literal["fp32", "fp16", "int8"]
_SCALE = ".row_scale"
"""Ending of the tensor that holds the scales of an 8-bit one."""
_WORTH_8_BITS = 4096
"""Numbers in a matrix below which 8 bits save nothing that counts."""
_RENAMED_PARTS = {"reuse": "recycling", "glances": "score_summaries"}
"""Parts of a network by their names in format 1."""
WEIGHTS = "model.safetensors"
DESCRIPTION = "tracker.json"
RANGES = "int8.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedTracker:
    """A tracker as it lies on disk."""

    network: DyTrackNetwork
    points: tuple[OperatingPoint, ...] = ()
    """Named thresholds and prices."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """Where it came from: recipe, step, metrics. Plain JSON types."""
    ranges: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    """Smallest and largest input of each linear layer, by graph, for int8 (twice the same number
    where a layer is left as it is); none where they were not found yet. See
    :mod:`~dytrack_model.runtime.quantisation`."""


def save(
    folder: str | Path,
    network: DyTrackNetwork,
    points: Sequence[OperatingPoint] = (),
    notes: Mapping[str, Any] | None = None,
    *,
    weights: Storage = "fp32",
) -> Path:
    """Write a tracker; an existing one at the same place is replaced, other files there stay.

    Args:
        folder: Where to.
        network: Its weights.
        points: Its operating points.
        notes: Where it came from; plain JSON.
        weights: How exactly they are kept: fp32, fp16 (half the size), int8 (a quarter).

    Who lets a user name the folder asks :func:`require_place` first.
    """
    description = {
        "format": FORMAT,
        "model": network.config.to_dict(),
        "points": [point.to_dict() for point in points],
        "notes": dict(notes or {}),
    }

    def write(beside: Path) -> None:
        tensors = _stored(network.state_dict(), weights)
        save_file(tensors, beside / WEIGHTS)
        (beside / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")

    write_folder(Path(folder), write)
    return Path(folder)


def require_place(folder: str | Path) -> None:
    """Refuse a folder in which somebody else's file has the name of one of a tracker's.

    Raises:
        CheckpointError: It has.
    """
    folder = Path(folder)
    if (folder / DESCRIPTION).exists():
        _read_description(folder)  # refuses what is no description of a tracker
    elif (folder / WEIGHTS).exists():
        raise CheckpointError(
            f"{folder}: holds {WEIGHTS} and no {DESCRIPTION}, so it is no tracker of ours; name "
            "another folder"
        )


def find(folder: str | Path) -> Path:
    """Return the folder of a tracker: the given one, or ``tracker`` in the folder of a run.

    A name of :data:`SHIPPED` stands for the tracker that comes with the package.

    Raises:
        CheckpointError: Neither holds a tracker.
    """
    if str(folder) in SHIPPED:
        return SHIPPED[str(folder)]
    folder = Path(folder)
    for place in (folder, folder / "tracker"):
        if (place / DESCRIPTION).is_file():
            return place
    if not folder.exists():
        raise CheckpointError(f"{folder}: no such tracker; give its folder, or that of its run")
    raise CheckpointError(f"{folder}: not a tracker: it has no {DESCRIPTION}")


def load(folder: str | Path) -> SavedTracker:
    """Read a tracker.

    Args:
        folder: Its folder, or that of the run which made it.

    Raises:
        CheckpointError: The folder is missing, damaged, or holds another model.
    """
    folder = find(folder)
    description = _read_description(folder)
    try:
        config = ModelConfig.from_dict(description["model"])
        points = parse_points(description["points"], config)
        notes = dict(description["notes"])
    except (ConfigurationError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / DESCRIPTION}: {error!s}; it is damaged") from error
    network = DyTrackNetwork(config)
    load_weights(network, folder / WEIGHTS)
    ranges = _read_ranges(folder)
    return SavedTracker(network=network.eval(), points=points, notes=notes, ranges=ranges)


def save_ranges(
    folder: str | Path,
    ranges: Mapping[str, Sequence[tuple[float, float]]],
    pictures: int | None = None,
) -> Path:
    """Keep ranges of activations beside the weights that they were found with.

    Args:
        folder: Of the tracker, or of its run.
        ranges: By graph.
        pictures: How many they were found with, where that is known.
    """
    folder = find(folder)
    values = {
        "format": 1,
        "weights": _digest(folder / WEIGHTS),
        "pictures": pictures,
        "graphs": {
            name: [[round(value, 5) for value in row] for row in rows]
            for name, rows in ranges.items()
        },
    }

    def write(beside: Path) -> None:
        (beside / RANGES).write_text(json.dumps(values) + "\n")

    write_folder(folder, write)
    return folder / RANGES


def parse_points(
    rows: Iterable[Mapping[str, Any]], config: ModelConfig
) -> tuple[OperatingPoint, ...]:
    """Turn plain JSON into the operating points of a network.

    Raises:
        KeyError: A key is missing.
        ValueError: A value is of another kind.
        ConfigurationError: A point does not fit the network.
    """
    points = tuple(OperatingPoint.from_dict(row) for row in rows)
    for point in points:
        given = f"operating point {point.name!r}: must have"
        costs = point.value.costs if point.value is not None else (*point.thresholds, 1.0)
        require(
            len(costs) == len(config.exits),
            f"{given} a rule for each of {len(config.exits)} exits, got {len(costs)}",
        )
        require(
            config.narrow_size > 0 or not point.narrow,
            f"{given} a narrow search region to look at, and model.narrow_size is 0",
        )
    return points


def parse_ranges(values: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Turn plain JSON into ranges.

    Raises:
        ValueError: A row is no pair of numbers.
    """
    return {
        str(graph): [(float(low), float(high)) for low, high in rows]
        for graph, rows in values.items()
    }


def _read_ranges(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Read ranges; none where there are none, or where the weights have changed since."""
    path = folder / RANGES
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text())
        ranges = parse_ranges(values["graphs"])
        current = int(values["format"]) == 1 and values["weights"] == _digest(folder / WEIGHTS)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: it is damaged; remove it, or calibrate again") from error
    return ranges if current else {}


def _digest(path: Path) -> str:
    """Name a file by its content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def fingerprint(folder: str | Path) -> str:
    """Name a tracker's network by its configuration and weights.

    Its operating points are not part of it: each result names its own, and a new point must not
    make the results of the others void.
    """
    folder = find(folder)
    network = json.dumps(read_config(folder).to_dict(), sort_keys=True)
    weights = (folder / WEIGHTS).read_bytes()
    return digest({"network": network.encode(), "weights": weights})


def digest(contents: Mapping[str, bytes]) -> str:
    """Name several named contents by one short word; their order does not matter."""
    whole = hashlib.sha256()
    for name in sorted(contents):
        whole.update(name.encode() + b"\0" + hashlib.sha256(contents[name]).digest())
    return whole.hexdigest()[:16]


def read_config(folder: str | Path) -> ModelConfig:
    """Read the configuration of a saved tracker, without its weights.

    Raises:
        CheckpointError: The folder holds no tracker, or a damaged one.
    """
    folder = find(folder)
    try:
        return ModelConfig.from_dict(_read_description(folder)["model"])
    except (ConfigurationError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / DESCRIPTION}: {error!s}; it is damaged") from error


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a tracker by the names of this format.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    return _restored(_current_names(read_tensors(path)))


def load_weights(network: DyTrackNetwork, path: str | Path) -> None:
    """Read weights into a network of the same configuration.

    Args:
        network: The network; changed in place.
        path: A file of weights.

    Raises:
        CheckpointError: The file is missing or damaged, or a tensor is missing, extra, or of
            another shape.
    """
    path = Path(path)
    tensors, expected = read_weights(path), network.state_dict()
    missing = sorted(set(expected) - set(tensors))
    extra = sorted(set(tensors) - set(expected))
    wrong = sorted(
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in set(expected) & set(tensors)
        if tensors[name].shape != expected[name].shape
    )
    faults = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("extra", extra), ("of another shape", wrong))
        if names
    ]
    if faults:
        raise CheckpointError(
            f"{path}: not the weights of this configuration: tensors {'; '.join(faults)}"
        )
    network.load_state_dict(tensors)


def _stored(state: Mapping[str, Tensor], weights: Storage) -> dict[str, Tensor]:
    """Return tensors, of any shape (*), as they are kept."""
    if weights == "fp32":
        return {name: value.contiguous() for name, value in state.items()}
    kept: dict[str, Tensor] = {}
    for name, value in state.items():
        if not value.is_floating_point():
            kept[name] = value.contiguous()
        elif weights == "int8" and value.ndim > 1 and value.numel() >= _WORTH_8_BITS:
            rows = value.float().flatten(1)
            # Symmetric, with the largest number of a row at 127: zero stays zero.
            scale = rows.abs().amax(dim=1).clamp(min=1e-12) / 127
            numbers = (rows / scale[:, None]).round().to(torch.int8)
            kept[name] = numbers.reshape(value.shape).contiguous()
            kept[name + _SCALE] = scale
        else:
            kept[name] = value.half().contiguous()
    return kept


def _restored(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn kept tensors (*) back into numbers to compute with."""
    found = {}
    for name, value in tensors.items():
        if name.endswith(_SCALE):
            continue
        scale = tensors.get(name + _SCALE)
        if scale is not None:
            value = value.float() * scale.reshape(-1, *[1] * (value.ndim - 1))
        found[name] = value
    return found


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON: {error}; it is damaged") from error
    if not isinstance(description, dict) or "format" not in description:
        raise CheckpointError(f"{path}: not the description of a tracker")
    if description["format"] not in (1, FORMAT):
        raise CheckpointError(
            f"{path}: format {description['format']}, this version reads {FORMAT}; update dytrack"
        )
    model = description.get("model")
    if description["format"] == 1 and isinstance(model, dict):
        token = model.get("iou_token", "mutual")
        description["model"] = {**model, "iou_token": RENAMED_IOU_TOKENS.get(token, token)}
    return description


def _current_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a format 1 file; those of this format stay as they are."""
    current = {}
    for name, tensor in tensors.items():
        part, dot, rest = name.partition(".")
        current[_RENAMED_PARTS.get(part, part) + dot + rest] = tensor
    return current

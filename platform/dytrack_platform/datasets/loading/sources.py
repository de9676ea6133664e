"""Which clips of which prepared folders belong to training and which to validation."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import pyarrow.parquet as pq

from dytrack_model.config import ModelConfig
from dytrack_platform.config import DataConfig, SourceConfig
from dytrack_platform.datasets.prepared.manifest import INDEX, REJECTS, partitions, read_manifest
from dytrack_platform.datasets.prepared.windows import window_factor
from dytrack_platform.errors import ConfigurationError, DataError
from dytrack_platform.storage.tree import Tree

Subset = Literal["train", "validation"]


@dataclass(frozen=True, slots=True)
class ClipRow:
    """Where a clip is stored."""

    tree: Tree
    file: str
    row: int
    name: str
    """``dataset/sequence``."""


def subset_rows(data: DataConfig, model: ModelConfig, subset: Subset) -> list[list[ClipRow]]:
    """Return each folder's rows that belong to a subset.

    Raises:
        ConfigurationError: No folder is named, or one was prepared for smaller crops.
        DataError: A folder is not prepared, not finished, or too small to be split.
    """
    if subset == "validation" and data.validation:
        return [_rows(source, data, model) for source in data.validation]
    if not data.train:
        raise ConfigurationError("data.train: must name at least one prepared folder, got ()")
    sources = []
    for source in data.train:
        rows = _rows(source, data, model)
        if not data.validation:
            rows = _held_out(rows, data.validation_share, source.path, subset)
        sources.append(rows)
    return sources


def _held_out(rows: list[ClipRow], share: float, path: str, subset: Subset) -> list[ClipRow]:
    """Split by sequence: a sequence's side depends on its name alone, wherever possible."""
    places = {row.name: _place(row.name) for row in rows}
    if len(places) < 2:
        raise DataError(
            f"{path}: has one sequence, of which none can be kept for validation; name a folder "
            "in data.validation"
        )
    held = {name for name, place in places.items() if place < share}
    ordered = sorted(places, key=lambda name: places[name])
    if not held:
        held = {ordered[0]}
    if len(held) == len(places):
        held.remove(ordered[-1])
    return [row for row in rows if (row.name in held) == (subset == "validation")]


def _place(name: str) -> float:
    """Place a name in [0, 1), evenly."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def _rows(source: SourceConfig, data: DataConfig, model: ModelConfig) -> list[ClipRow]:
    rows = []
    for partition in partitions(source.path):
        manifest = read_manifest(partition)
        _refuse_too_small(partition, manifest["configuration"], data, model)
        with partition.open(INDEX) as file:
            index = pq.read_table(file, columns=["file", "row", "sequence"]).to_pydict()
        rows += [
            ClipRow(partition, file, row, f"{manifest['dataset']}/{sequence}")
            for file, row, sequence in zip(*index.values(), strict=True)
        ]
    if not rows:
        raise DataError(f"{source.path}: holds no clip; see {REJECTS} there")
    return rows


def _refuse_too_small(
    partition: Tree, stored: dict[str, float], data: DataConfig, model: ModelConfig
) -> None:
    """Refuse to train on windows that would show black where tracking sees the image."""
    needed = window_factor(model.search_factor, data.centre_jitter, data.scale_jitter)
    there = window_factor(stored["search_factor"], stored["centre_jitter"], stored["scale_jitter"])
    if needed > there + 1e-6:
        raise ConfigurationError(
            f"data.centre_jitter: with data.scale_jitter and model.search_factor a crop reaches "
            f"{needed:.2f} times the target's size, but {partition.root} was prepared for "
            f"{there:.2f}; prepare it again with larger jitter"
        )

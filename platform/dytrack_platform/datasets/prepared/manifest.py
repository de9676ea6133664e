"""The manifest of a prepared partition: what it was made from, and whether it is whole."""

import hashlib
import json
from typing import Any

from dytrack_platform.datasets.prepared.shards import SCHEMA_VERSION
from dytrack_platform.datasets.prepared.windows import ClipConfig
from dytrack_platform.errors import DataError
from dytrack_platform.storage.tree import Tree

MANIFEST = "manifest.json"
INDEX = "index.parquet"
REJECTS = "rejects.jsonl"


def partition_folder(dataset: str, split: str) -> str:
    """Name the folder of a dataset's split inside of a prepared root.

    Raises:
        DataError: The split cannot be part of a path.
    """
    if not split or split.startswith(".") or not all(c.isalnum() or c in "-_." for c in split):
        raise DataError(f"split {split!r}: must be letters, digits, '-', '_' or '.'")
    return f"dataset={dataset}/split={split}"


def new_manifest(dataset: str, split: str, source: str, config: ClipConfig) -> dict[str, Any]:
    """Return the manifest of a preparation that is under way."""
    values = config.to_dict()
    return {
        "schema_version": SCHEMA_VERSION,
        "complete": False,
        "dataset": dataset,
        "split": split,
        "source": source,
        "configuration": values,
        "configuration_hash": hashlib.sha256(json.dumps(values).encode()).hexdigest(),
    }


def refuse_other(partition: Tree, manifest: dict[str, Any]) -> None:
    """Refuse to mix clips of two configurations in one partition.

    Raises:
        DataError: The partition's manifest is of another configuration, or cannot be read.
    """
    if not partition.is_file(MANIFEST):
        return
    found = read_manifest(partition)
    if found["configuration_hash"] != manifest["configuration_hash"]:
        wanted, there = manifest["configuration"], found["configuration"]
        keys = [key for key in wanted if there.get(key) != wanted[key]]
        differences = ", ".join(f"{key} {there.get(key)} (now {wanted[key]})" for key in keys)
        raise DataError(
            f"{partition.root}: holds clips of another configuration: {differences}; name "
            "another --out, or write them anew with --fresh"
        )


def read_manifest(partition: Tree) -> dict[str, Any]:
    """Read a partition's manifest.

    Raises:
        DataError: It is missing, damaged, or of a newer program.
    """
    path = partition.path(MANIFEST)
    try:
        found: dict[str, Any] = json.loads(partition.read_bytes(MANIFEST))
        version = int(found["schema_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is not a manifest of prepared clips ({error!r})") from error
    if version > SCHEMA_VERSION:
        raise DataError(
            f"{path}: has schema version {version}, this program knows up to {SCHEMA_VERSION}; "
            "update dytrack, or prepare the data again"
        )
    return found


def to_json(manifest: dict[str, Any]) -> bytes:
    """Return a manifest as it is stored."""
    return (json.dumps(manifest, indent=1) + "\n").encode()


def partitions(path: str, *, finished: bool = True) -> list[Tree]:
    """Find the prepared partitions of a folder: itself, or those below it, of one split.

    Args:
        path: A partition, the root that ``dytrack prepare`` was given, or a folder between.
        finished: Refuse partitions whose preparation was not finished, and several splits.

    Raises:
        DataError: There is none, one is unfinished, or they are of several splits.
    """
    root = Tree(path)
    if not root.is_folder():
        raise DataError(f"{path}: no such folder; make it with dytrack prepare")
    if root.is_file(MANIFEST):
        found = [root]
    else:
        found = [
            root / f"{dataset}/{split}"
            for dataset in root.names()
            if dataset.startswith("dataset=")
            for split in root.names(dataset)
            if root.is_file(f"{dataset}/{split}/{MANIFEST}")
        ]
        below = root.names() if root.is_folder() else []
        found += [root / name for name in below if root.is_file(f"{name}/{MANIFEST}")]
    if not found:
        raise DataError(f"{path}: holds no prepared clips; make them with dytrack prepare")
    if not finished:
        return found
    manifests = [read_manifest(partition) for partition in found]
    for partition, manifest in zip(found, manifests, strict=True):
        if not manifest["complete"]:
            raise DataError(
                f"{partition.root}: its preparation was not finished; run dytrack prepare again"
            )
    splits = sorted({manifest["split"] for manifest in manifests})
    if len(splits) > 1:
        raise DataError(
            f"{path}: holds the splits {', '.join(splits)}; name one of the folders below it"
        )
    return found

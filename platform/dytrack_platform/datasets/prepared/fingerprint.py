"""Tell whether prepared data are the ones that a run began with."""

import hashlib
from typing import Any

import pyarrow.parquet as pq

from dytrack_platform.config import DataConfig
from dytrack_platform.datasets.prepared.manifest import INDEX, partitions


def fingerprint(data: DataConfig) -> dict[str, dict[str, Any]]:
    """Describe each prepared folder: clips, sequences, and a digest of their index.

    Raises:
        DataError: A folder is not prepared, or not finished.
    """
    found = {}
    for source in (*data.train, *data.validation):
        digest, clips, sequences = hashlib.sha256(), 0, set()
        for partition in partitions(source.path):
            digest.update(partition.read_bytes(INDEX))
            with partition.open(INDEX) as file:
                names = pq.read_table(file, columns=["sequence"])["sequence"].to_pylist()
            clips += len(names)
            sequences |= {(partition.root, name) for name in names}
        found[source.path] = {
            "clips": clips,
            "sequences": len(sequences),
            "digest": digest.hexdigest(),
        }
    return found


def changes(before: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]]) -> list[str]:
    """Say with numbers which folders are not what they were."""
    said = []
    for path in sorted(before | now):
        was, is_ = before.get(path), now.get(path)
        if was == is_:
            continue
        had, has = _counts(was), _counts(is_)
        said.append(f"{path} had {had} and has {has}{' (other ones)' if had == has else ''}")
    return said


def _counts(described: dict[str, Any] | None) -> str:
    if described is None:
        return "no part in it"
    return f"{described['clips']} clips of {described['sequences']} sequences"

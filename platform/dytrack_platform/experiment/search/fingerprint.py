"""What a search was begun on: digests by which a change of data or of the tracker is seen."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dytrack_platform.config import ExperimentConfig
from dytrack_platform.config.schema import ResidentSource
from dytrack_platform.datasets.prepared.fingerprint import fingerprint
from dytrack_platform.datasets.resident.load import wanted


def of_recipe(config: ExperimentConfig) -> dict[str, Any]:
    """Describe the data that trials train on and are scored on.

    Raises:
        DataError: A folder is not prepared, or missing.
    """
    data = config.data
    if data.resident:
        found = {}
        for source in (*data.resident, *data.resident_validation):
            if source.dataset != "cutouts":
                root = source.root if source.root.startswith("/") else f"{data.root}/{source.root}"
                key = f"{source.dataset} {root} {source.split}"
                found[key] = of_sequences(_rooted(source, root))
        return found
    return {path: one["digest"] for path, one in fingerprint(data).items()}


def of_sequences(source: ResidentSource) -> str:
    """Digest the names and annotations of a source's sequences.

    Raises:
        DataError: The folder or the split is missing.
    """
    sequences = sorted(wanted(source), key=lambda sequence: sequence.name)
    return _digest(
        part for one in sequences for part in (one.name.encode(), one.boxes_xywh.tobytes())
    )


def of_tracker(folder: Path) -> str:
    """Digest a tracker's weights."""
    return _digest(path.read_bytes() for path in sorted(folder.glob("*.safetensors")))


def _digest(parts: Iterable[bytes]) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()[:16]


def _rooted(source: ResidentSource, root: str) -> ResidentSource:
    return replace(source, root=root)

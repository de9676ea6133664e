"""What a search was begun on: digests by which a change of data or of the tracker is seen."""

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dytrack_model.network import DyTrackNetwork
from dytrack_platform.config import ExperimentConfig
from dytrack_platform.config.locations import rooted
from dytrack_platform.config.schema import ResidentSource
from dytrack_platform.datasets.prepared.fingerprint import fingerprint
from dytrack_platform.datasets.resident.load import wanted
from dytrack_platform.training.closed_loop import Film


def of_recipe(config: ExperimentConfig) -> dict[str, Any]:
    """Describe the data that trials train on and are scored on.

    Raises:
        DataError: A folder is not prepared, or missing.
    """
    data = config.data
    if data.resident:
        found = {}
        for source in rooted(data, (*data.resident, *data.resident_validation)):
            if source.dataset != "cutouts":
                key = f"{source.dataset} {source.root} {source.split}"
                found[key] = of_sequences(source)
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


def of_recording(network: DyTrackNetwork, films: Sequence[Film], computed: str) -> str:
    """Digest what decides what a tracker's exits say along films.

    The version of the package is part of it: another may crop differently. Pictures are known
    by name, number and boxes, as everywhere in a search.

    Args:
        network: The tracker.
        films: The videos.
        computed: Device and number format.
    """
    about = {
        "version": importlib.metadata.version("dytrack"),
        "network": network.config.to_dict(),
        "computed": computed,
        "films": [(film.name, film.size, len(film.pictures)) for film in films],
    }
    boxes = (film.boxes_xywh.tobytes() for film in films)
    state = network.state_dict()
    tensors = (state[name].cpu().numpy().tobytes() for name in sorted(state))
    return _digest([json.dumps(about, sort_keys=True).encode(), *boxes, *tensors])


def _digest(parts: Iterable[bytes]) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()[:16]

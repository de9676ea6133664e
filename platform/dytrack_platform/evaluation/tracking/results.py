"""The files of an evaluation: one result per sequence and point, written when it is finished.

::

    OUT/results/POINT/SEQ.txt     boxes, x,y,w,h per line, read back exactly
    OUT/results/POINT/SEQ.json    times, indices of exits, scores, states of the target where they
                                  were asked for, and the fingerprint of the run

A result counts as finished when its JSON is there: it is written last, beside and renamed. It is
used again only by a run with the same fingerprint, and never silently.
"""

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.errors import ResultError, StorageError
from dytrack_platform.evaluation.scoring.result_files import format_boxes, read_boxes, read_text
from dytrack_platform.evaluation.tracking.protocol import SequenceResult
from dytrack_platform.storage.atomic import write_atomically

_LOG = logging.getLogger(__name__)

_SERIES = ("times_s", "decode_s", "network_ms", "scores", "gmacs")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """What a stored result depends on."""

    model: str
    """Which weights: a digest of the checkpoint, or a third-party tracker's name and options."""
    point: str
    """Thresholds or policy, written out."""
    dataset: str
    """Dataset, number of frames, and a digest of the annotation and the first image."""
    code: str
    """Version of this program."""
    machine: str = ""
    """Device and threads, which the times depend on."""

    def differences(self, other: "Fingerprint") -> list[str]:
        """Say in words what differs."""
        ours, theirs = asdict(self), asdict(other)
        return [
            f"{key} {theirs[key]!r} is now {ours[key]!r}"
            for key in ours
            if ours[key] != theirs[key]
        ]


def result_paths(out: Path, point: str, sequence: str) -> tuple[Path, Path]:
    """Name the two files of a result: boxes, and everything else.

    Raises:
        ResultError: A name is not usable as a file name.
    """
    for name in (point, sequence):
        if not name or name.startswith(".") or "/" in name or "\\" in name:
            raise ResultError(f"{name!r}: not usable as the name of a result file")
    folder = out / "results" / point
    return folder / f"{sequence}.txt", folder / f"{sequence}.json"


def write_result(out: Path, point: str, result: SequenceResult, fingerprint: Fingerprint) -> Path:
    """Store a finished sequence.

    Returns:
        The file of boxes.

    Raises:
        StorageError: The folder cannot be written.
    """
    boxes, sidecar = result_paths(out, point, result.name)
    series = {name: _plain(getattr(result, name)) for name in _SERIES}
    about = {
        "fingerprint": asdict(fingerprint),
        "frames": len(result),
        "image_size": list(result.image_size),
        "exit_indices": result.exit_indices.tolist(),
        "undecoded": list(result.undecoded),
        "broken": list(result.broken),
        "states": list(result.states),
    }
    # The fingerprint seals a result: an older one must not stand beside newer boxes.
    try:
        sidecar.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{sidecar}: cannot be replaced: {error.strerror}") from error
    write_atomically(boxes, format_boxes(result.boxes_xywh))
    write_atomically(sidecar, json.dumps(about | series) + "\n")
    return boxes


def read_result(out: Path, point: str, sequence: str) -> SequenceResult:
    """Read a stored sequence.

    Raises:
        ResultError: A file is missing or damaged, or the two do not belong together.
    """
    boxes_path, sidecar = result_paths(out, point, sequence)
    return _combine(boxes_path, sidecar, _load(sidecar))


def read_finished(
    out: Path, point: str, sequence: str, fingerprint: Fingerprint
) -> SequenceResult | None:
    """Return a stored result if it may stand for a new run; log what is reused and what is not."""
    boxes_path, sidecar = result_paths(out, point, sequence)
    if not sidecar.is_file():
        return None
    try:
        stored = _load(sidecar)
        old = Fingerprint(**stored["fingerprint"])
        result = _combine(boxes_path, sidecar, stored)
    except (KeyError, TypeError, ResultError) as error:
        _LOG.warning("%s: run again, the stored result is damaged: %s", sequence, error)
        return None
    changes = fingerprint.differences(old)
    if changes:
        _LOG.info("%s at %s: run again: %s", sequence, point, "; ".join(changes))
        return None
    _LOG.info("%s at %s: finished before with the same model, data and code", sequence, point)
    return result


def _load(sidecar: Path) -> dict[str, Any]:
    try:
        stored = json.loads(read_text(sidecar))
    except json.JSONDecodeError as error:
        raise ResultError(f"{sidecar}: not JSON; delete it and evaluate again") from error
    if not isinstance(stored, dict):
        raise ResultError(f"{sidecar}: expected an object; delete it and evaluate again")
    return stored


def _combine(boxes_path: Path, sidecar: Path, stored: Mapping[str, Any]) -> SequenceResult:
    boxes = read_boxes(boxes_path)
    try:
        series = {name: _array(stored[name]) for name in _SERIES}
        exit_indices = np.array(stored["exit_indices"], dtype=np.int64)
        undecoded = tuple(int(frame) for frame in stored["undecoded"])
        broken = tuple(int(frame) for frame in stored["broken"])
        states = tuple(str(state) for state in stored.get("states", ()))
        width, height = stored["image_size"]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ResultError(f"{sidecar}: damaged ({error}); delete it and evaluate again") from error
    lengths = {len(exit_indices), *(len(values) for values in series.values())}
    if {len(boxes)} != lengths | ({len(states)} if states else set()):
        raise ResultError(
            f"{sidecar}: holds another number of frames than the {len(boxes)} boxes of "
            f"{boxes_path.name}; delete both and evaluate again"
        )
    return SequenceResult(
        name=boxes_path.stem,
        boxes_xywh=boxes,
        exit_indices=exit_indices,
        image_size=(int(width), int(height)),
        undecoded=undecoded,
        broken=broken,
        states=states,
        **series,
    )


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


def _array(values: list[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)

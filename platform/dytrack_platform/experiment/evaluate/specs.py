"""What is evaluated: operating points of our tracker, its baselines, and other trackers."""

import hashlib
from collections.abc import Mapping
from collections.abc import Sequence as List
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2

import dytrack_model
from dytrack_model.checkpoint import SavedTracker
from dytrack_model.policy import shares_to_cycle
from dytrack_platform.datasets.sequence import Sequence
from dytrack_platform.errors import ConfigurationError, DataError
from dytrack_platform.evaluation.tracking import opencv_trackers, protocol

BASELINES = ("fixed", "random", "cycle", "oracle", "static")
"""What a tracker of ours is compared with, besides OpenCV's trackers as ``cv2:NAME``."""

Rule = Literal["thresholds", "fixed", "random", "cycle", "peer"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One thing to evaluate: our tracker at some point, or another tracker."""

    name: str
    """Folder of its results and name in the report."""
    rule: Rule
    """How our tracker chooses exits; ``peer`` for a tracker that is not ours."""
    values: tuple[float, ...] = ()
    """Thresholds; the exit's index; shares of the exits; or the cycle of exits."""
    hysteresis: float = 0.0
    """Of thresholds: how much they move towards the exit of the frame before."""
    peer: str = ""
    """``static`` or ``cv2:NAME``."""
    options: tuple[tuple[str, str], ...] = ()
    """Options of a peer, such as the files of its network."""

    def __str__(self) -> str:
        if self.rule == "peer":
            files = ",".join(f"{key}={value}" for key, value in self.options)
            return f"{self.peer}({files}), OpenCV {cv2.__version__}"
        held = f" held by {self.hysteresis:g}" if self.hysteresis else ""
        return f"{self.rule}{self.values}{held}"


def point_entries(saved: SavedTracker, names: List[str] = ()) -> list[Entry]:
    """Spell out operating points.

    Args:
        saved: Our tracker.
        names: Names of stored points, or thresholds such as ``0.6,0.8``; empty for all stored
            ones, or full depth where none is stored.

    Raises:
        ConfigurationError: A name is unknown, or there are too few or too many thresholds.
    """
    stored = [point.name for point in saved.points] or ["full"]
    return [_point(name, saved) for name in names or stored]


def _point(name: str, saved: SavedTracker) -> Entry:
    refusable = saved.network.exit_count - 1
    if name == "full":
        return Entry(name="full", rule="thresholds", values=(float("inf"),) * refusable)
    try:
        values = tuple(float(part) for part in name.split(","))
    except ValueError:
        point = saved.point(name)
        return Entry(
            name=name, rule="thresholds", values=point.thresholds, hysteresis=point.hysteresis
        )
    if len(values) != refusable:
        raise ConfigurationError(
            f"points: this tracker takes {refusable} thresholds, one per exit but the last, "
            f"got {name!r}"
        )
    return Entry(name=f"at-{name}", rule="thresholds", values=values)


def baseline_entries(
    names: List[str], saved: SavedTracker | None, options: Mapping[str, str]
) -> list[Entry]:
    """Spell out baselines; those matched to a point's cost follow from :func:`matched_entries`.

    Args:
        names: Of :data:`BASELINES` and ``cv2:NAME``.
        saved: Our tracker, or None to judge other trackers only.
        options: Options of OpenCV's trackers.

    Raises:
        ConfigurationError: A name is unknown, needs a model, or its options are wrong.
        RuntimeMissingError: The installed OpenCV lacks a tracker.
    """
    entries: list[Entry] = []
    for name in names:
        if name == "static" or name.startswith("cv2:"):
            given = tuple(sorted(options.items())) if name != "static" else ()
            opencv_trackers.make_peer(
                name, dict(given)
            )  # refuses here what a worker would refuse later
            safe = name.replace(":", "-")
            entries.append(Entry(name=safe, rule="peer", peer=name, options=given))
        elif name not in BASELINES:
            known = ", ".join((*BASELINES, "cv2:NAME"))
            raise ConfigurationError(f"baselines: must be of {known}, got {name!r}")
        elif saved is None:
            raise ConfigurationError(f"baselines: {name} needs a tracker of ours; give --model")
    if saved is not None and {"fixed", "oracle"} & set(names):
        entries = fixed_entries(saved.network.exit_count) + entries
    return entries


def fixed_entries(exits: int) -> list[Entry]:
    """One baseline per exit: the model of fixed depth that shares these weights."""
    return [Entry(name=f"exit-{k + 1}", rule="fixed", values=(float(k),)) for k in range(exits)]


def matched_entries(shares: List[float]) -> list[Entry]:
    """Baselines at the cost of a point: its exit shares drawn at random, and in a fixed cycle."""
    cycle = tuple(float(k) for k in shares_to_cycle(shares))
    return [
        Entry(name="random", rule="random", values=tuple(shares)),
        Entry(name="cycle", rule="cycle", values=cycle),
    ]


def code_version() -> str:
    """Digest the source that decides a box: the model's package and the protocol."""
    folder = Path(dytrack_model.__file__).parent
    files = [*folder.rglob("*.py"), Path(protocol.__file__), Path(opencv_trackers.__file__)]
    return _digest({f"{file.parent.name}/{file.name}": file.read_bytes() for file in files})


def sequence_version(sequence: Sequence) -> str:
    """Digest a sequence's annotation and its first picture: enough to know the data by."""
    try:
        first = sequence.frames.read(0).tobytes()
    except DataError:  # the tracker will meet it too, and say so
        first = b""
    return _digest({"boxes": sequence.boxes_xywh.tobytes(), "first": first})


def model_version(folder: Path) -> str:
    """Digest a tracker's weights and configuration."""
    files = [file for file in folder.iterdir() if file.suffix in (".safetensors", ".json")]
    return _digest({file.name: file.read_bytes() for file in files})


def _digest(contents: Mapping[str, bytes]) -> str:
    whole = hashlib.sha256()
    for name in sorted(contents):
        whole.update(name.encode() + b"\0" + hashlib.sha256(contents[name]).digest())
    return whole.hexdigest()[:16]

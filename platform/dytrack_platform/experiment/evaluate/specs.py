"""What is evaluated: operating points of our tracker, its baselines, and other trackers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2

import dytrack_model
from dytrack_model.checkpoint import SavedTracker, digest
from dytrack_model.config import ModelConfig
from dytrack_model.depth_value import ValueRule
from dytrack_model.policy import FULL, find_point, shares_to_cycle
from dytrack_platform.datasets.sequence import VideoSequence
from dytrack_platform.errors import ConfigurationError, DataError
from dytrack_platform.evaluation.tracking import opencv_trackers, protocol

BASELINES = ("fixed", "random", "cycle", "oracle", "static")
"""What a tracker of ours is compared with, besides OpenCV's trackers as ``cv2:NAME``."""

NARROW_END = "-narrow"
"""How the name of a fixed exit over the narrow search region ends."""

Rule = Literal["thresholds", "value", "fixed", "random", "cycle", "third-party"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackerSpec:
    """One thing to evaluate: our tracker at some point, or another tracker."""

    name: str
    """Folder of its results and name in the report."""
    rule: Rule
    """How our tracker chooses exits; ``third-party`` for a tracker that is not ours."""
    values: tuple[float, ...] = ()
    """Thresholds; the exit's index; shares of the exits; or the cycle of exits."""
    hysteresis: float = 0.0
    """Of thresholds: how much they move towards the exit of the frame before."""
    value: ValueRule | None = None
    """What depth is worth, and its price."""
    narrow: bool = False
    """Whether the narrow search region is looked at while the target is certain and slow."""
    third_party: str = ""
    """``static`` or ``cv2:NAME``."""
    options: tuple[tuple[str, str], ...] = ()
    """Options of a third-party tracker, such as the files of its network."""
    states: bool = False
    """Whether our tracker says when its target is lost, and looks for it."""

    def __str__(self) -> str:
        if self.rule == "third-party":
            files = ",".join(f"{key}={value}" for key, value in self.options)
            return f"{self.third_party}({files}), OpenCV {cv2.__version__}"
        states = (" narrow" if self.narrow else "") + (" with states" if self.states else "")
        if self.value is not None:
            return f"value{self.value.to_dict()}{states}"
        held = f" held by {self.hysteresis:g}" if self.hysteresis else ""
        return f"{self.rule}{self.values}{held}{states}"


def point_specs(saved: SavedTracker, names: Sequence[str] = ()) -> list[TrackerSpec]:
    """Spell out operating points.

    Args:
        saved: Our tracker.
        names: Names of stored points, or thresholds such as ``0.6,0.8``; empty for all stored
            ones, or full depth where none is stored.

    Raises:
        ConfigurationError: A name is unknown, or there are too few or too many thresholds.
    """
    stored = [point.name for point in saved.points] or [FULL]
    points = [find_point(saved.points, n, saved.network.exit_count) for n in names or stored]
    return [
        TrackerSpec(
            name=point.name,
            rule="value" if point.value else "thresholds",
            values=point.thresholds,
            hysteresis=point.hysteresis,
            value=point.value,
            narrow=point.narrow,
        )
        for point in points
    ]


def baseline_specs(names: Sequence[str], saved: SavedTracker | None) -> list[TrackerSpec]:
    """Spell out baselines; those matched to a point's cost follow from :func:`matched_specs`.

    Args:
        names: Of :data:`BASELINES` and ``cv2:NAME``, or ``cv2:NAME,KEY=FILE,…`` with its files.
        saved: Our tracker, or None to judge other trackers only.

    Raises:
        ConfigurationError: A name is unknown, needs a model, or its options are wrong.
        RuntimeMissingError: The installed OpenCV lacks a tracker.
    """
    specs: list[TrackerSpec] = []
    for name in names:
        if name == "static" or name.startswith("cv2:"):
            kind, options = opencv_trackers.with_options(name)
            # Refuses here what a worker would refuse later.
            opencv_trackers.make_third_party(kind, options)
            specs.append(
                TrackerSpec(
                    name=_unused(kind.replace(":", "-"), specs),
                    rule="third-party",
                    third_party=kind,
                    options=tuple(sorted(options.items())),
                )
            )
        elif name not in BASELINES:
            known = ", ".join((*BASELINES, "cv2:NAME"))
            raise ConfigurationError(f"baselines and trackers: must be of {known}, got {name!r}")
        elif saved is None:
            raise ConfigurationError(f"baselines: {name} needs a tracker of ours; give --model")
    if saved is not None and {"fixed", "oracle"} & set(names):
        specs = fixed_specs(saved.network.config) + specs
    return specs


def _unused(name: str, specs: Sequence[TrackerSpec]) -> str:
    """Number a name that another tracker has: one network with two sets of files is two."""
    taken, number, free = {spec.name for spec in specs}, 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def fixed_specs(config: ModelConfig) -> list[TrackerSpec]:
    """One baseline per exit, the model of fixed depth that shares these weights.

    Its name tells the depth in blocks, and whether it looks at the narrow search region, of which
    there is one more for each exit where a tracker has it.
    """
    return [
        TrackerSpec(
            name=f"exit-{block}{NARROW_END if narrow else ''}",
            rule="fixed",
            values=(float(k),),
            narrow=narrow,
        )
        for narrow in ((False, True) if config.narrow_size else (False,))
        for k, block in enumerate(config.exits)
    ]


def matched_specs(
    shares: Mapping[str, Sequence[float]], points: Sequence[TrackerSpec] = ()
) -> list[TrackerSpec]:
    """Baselines at the cost of each point: its exit shares at random, and in a fixed cycle.

    Args:
        shares: Exit shares by name of the point, fast to accurate. The middle one's baselines are
            called ``random`` and ``cycle``, the others' ``random-POINT`` and ``cycle-POINT``.
        points: The points; baselines of those that look at the narrow search region do too.
    """
    narrow = {spec.name for spec in points if spec.narrow}
    specs = []
    for index, (point, taken) in enumerate(shares.items()):
        end = "" if index == len(shares) // 2 else f"-{point}"
        cycle = tuple(float(k) for k in shares_to_cycle(taken))
        specs += [
            TrackerSpec(
                name=f"random{end}", rule="random", values=tuple(taken), narrow=point in narrow
            ),
            TrackerSpec(name=f"cycle{end}", rule="cycle", values=cycle, narrow=point in narrow),
        ]
    return specs


def count_deciding(points: Sequence[TrackerSpec]) -> int:
    """Count the points that baselines of the same cost can follow, as far as it can be foreseen.

    Those that can take several exits do; where there is none, one of the points does.
    """
    several = [p for p in points if p.value or any(math.isfinite(t) for t in p.values)]
    return len(several) or min(1, len(points))


def code_version() -> str:
    """Digest the source that decides a box: the model's package and the protocol."""
    folder = Path(dytrack_model.__file__).parent
    files = [*folder.rglob("*.py"), Path(protocol.__file__), Path(opencv_trackers.__file__)]
    return digest({f"{file.parent.name}/{file.name}": file.read_bytes() for file in files})


def sequence_version(sequence: VideoSequence) -> str:
    """Digest a sequence's annotation and its first image: enough to know the data by."""
    try:
        first = sequence.frames.read(0).tobytes()
    except DataError:  # the tracker will meet it too, and say so
        first = b""
    return digest({"boxes": sequence.boxes_xywh.tobytes(), "first": first})

"""Score anybody's result files: every tracker of a folder, by one profile."""

import re
from collections.abc import Mapping
from collections.abc import Sequence as List
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.errors import ResultError
from dytrack_platform.evaluation.averages import TrackerScore, summarise
from dytrack_platform.evaluation.boxfiles import (
    delimiters,
    parse_boxes,
    read_numbers,
    read_text,
)
from dytrack_platform.evaluation.metrics import Floats
from dytrack_platform.evaluation.prepared import Annotation, Prepared
from dytrack_platform.evaluation.profiles import Profile
from dytrack_platform.evaluation.scoring import SequenceScore, measure, merge


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackerFiles:
    """The result files of one tracker."""

    name: str
    boxes: dict[str, tuple[Path, ...]]
    """Files of boxes by sequence; several are repetitions."""
    times: dict[str, Path]
    """Files of seconds per frame by sequence, where there are any."""


@dataclass(kw_only=True, slots=True)
class Scoreboard:
    """What came of scoring a folder of results."""

    profile: Profile
    trackers: dict[str, TrackerScore] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    """By tracker: why the profile's toolkit would stop, or what cannot be read."""
    unusual: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON of ``dytrack score``."""
        return {
            "protocol": self.profile.name,
            "source": self.profile.source,
            "trackers": {name: score.to_dict() for name, score in self.trackers.items()},
            "errors": self.errors,
            "unusual": self.unusual,
        }


def find_trackers(folder: Path) -> list[TrackerFiles]:
    """Find trackers: ``DIR/TRACKER/SEQ.txt``, GOT-10k's tree, or ``DIR/SEQ.txt`` for one.

    Raises:
        ResultError: The folder is missing or holds no result.
    """
    if not folder.is_dir():
        raise ResultError(f"{folder}: no such folder of results")
    alone = _tracker_files(folder)
    if alone.boxes:
        return [alone]
    found = [_tracker_files(child) for child in sorted(folder.iterdir()) if child.is_dir()]
    found = [tracker for tracker in found if tracker.boxes]
    if not found:
        raise ResultError(f"{folder}: no results; expected TRACKER/SEQ.txt")
    return found


def _tracker_files(folder: Path) -> TrackerFiles:
    boxes: dict[str, tuple[Path, ...]] = {}
    times: dict[str, Path] = {}
    for path in [*sorted(folder.glob("*.txt")), *sorted(folder.glob("*/*.txt"))]:
        stem, own = path.stem, path.parent.name
        if stem.endswith(("_time", "_times")):
            times[stem.rpartition("_")[0]] = path
        elif path.parent == folder:
            boxes[stem] = (path,)
        elif re.fullmatch(re.escape(own) + r"_\d{3}", stem):
            boxes[own] = (*boxes.get(own, ()), path)
    return TrackerFiles(name=folder.name, boxes=boxes, times=times)


def score_results(
    profile: Profile, annotations: List[Annotation], trackers: List[TrackerFiles]
) -> Scoreboard:
    """Score trackers; one that the profile's toolkit would stop on does not stop the others.

    Args:
        profile: The rules.
        annotations: The benchmark.
        trackers: Whose files to score.
    """
    board = Scoreboard(profile=profile)
    scores: dict[str, list[SequenceScore]] = {tracker.name: [] for tracker in trackers}
    matched = {t.name: _match(t, annotations, board.unusual) for t in trackers}
    _note_clipping(profile, annotations, board.unusual)
    for annotation in annotations:
        try:
            prepared = Prepared(profile, annotation)
        except ResultError as error:
            board.errors = {tracker.name: str(error) for tracker in trackers}
            return board
        results: dict[str, list[Floats]] = {}
        for tracker in trackers:
            if tracker.name in board.errors:
                continue
            try:
                paths = matched[tracker.name].get(annotation.name)
                results[tracker.name] = _read(profile, annotation, tracker.name, paths, board)
            except ResultError as error:
                board.errors[tracker.name] = str(error)
        for name, score in _measure_all(prepared, results, board.errors).items():
            scores[name].append(score)
            board.unusual += [f"{name}, {annotation.name}: {note}" for note in score.notes]
    attributes, classes = _groups(annotations)
    for tracker in trackers:
        if tracker.name not in board.errors:
            board.trackers[tracker.name] = summarise(
                profile,
                scores[tracker.name],
                attributes=attributes,
                classes=classes,
                times_s=_times(tracker, annotations, board.unusual),
            )
    return board


def _measure_all(
    prepared: Prepared, results: Mapping[str, List[Floats]], errors: dict[str, str]
) -> dict[str, SequenceScore]:
    """Score all trackers of a sequence in one pass; apart only where one of them has an error."""
    try:
        flat = iter(measure(prepared, [box for own in results.values() for box in own]))
        return {name: merge([next(flat) for _ in own]) for name, own in results.items()}
    except ResultError:
        scores = {}
        for name, own in results.items():
            try:
                scores[name] = merge(measure(prepared, own))
            except ResultError as error:
                errors[name] = str(error)
        return scores


def _read(
    profile: Profile,
    annotation: Annotation,
    tracker: str,
    paths: tuple[Path, ...] | None,
    board: Scoreboard,
) -> list[Floats]:
    if paths is None:
        if profile.missing_sequence == "refused":
            raise ResultError(
                f"{tracker}: no result of {annotation.name}, and the toolkit behind "
                f"{profile.name} stops on that; add it or leave the sequence out with --exclude"
            )
        board.unusual.append(f"{tracker}, {annotation.name}: no result, scored as all-zero boxes")
        return [np.zeros((len(annotation.boxes_xywh), 4))]
    boxes = []
    for path in paths:
        text = read_text(path)
        if " and " in (marks := delimiters(text)):
            board.unusual.append(f"{tracker}, {annotation.name}: {path.name} mixes {marks}")
        boxes.append(parse_boxes(path, text))
    return boxes


def _match(
    tracker: TrackerFiles, annotations: List[Annotation], unusual: list[str]
) -> dict[str, tuple[Path, ...]]:
    """Find each sequence's files; names may differ in case and in ``-``, ``_`` and ``.``."""
    loose: dict[str, list[str]] = {}
    for name in tracker.boxes:
        loose.setdefault(_loosely(name), []).append(name)
    found, used = {}, set()
    for annotation in annotations:
        name = annotation.name
        if name not in tracker.boxes:
            near = loose.get(_loosely(name), [])
            if len(near) != 1:
                continue
            unusual.append(f"{tracker.name}, {name}: taken from the file called {near[0]}")
            name = near[0]
        found[annotation.name] = tracker.boxes[name]
        used.add(name)
    extra = sorted(set(tracker.boxes) - used)
    if extra:
        more = "" if len(extra) == 1 else f" and {len(extra) - 1} more"
        unusual.append(f"{tracker.name}: not of this benchmark and not scored: {extra[0]}{more}")
    return found


def _loosely(name: str) -> str:
    return re.sub(r"[-_.]", "-", name).lower()


def _note_clipping(profile: Profile, annotations: List[Annotation], unusual: list[str]) -> None:
    unsized = [a.name for a in annotations if a.image_size is None]
    if profile.clipped and unsized:
        unusual.append(
            f"{len(unsized)} sequences have no image size (meta_info.ini), so their boxes were "
            f"not clipped to the image: {unsized[0]} is the first"
        )


def _groups(annotations: List[Annotation]) -> tuple[dict[str, list[str]], dict[str, str]]:
    attributes: dict[str, list[str]] = {}
    for annotation in annotations:
        for attribute in annotation.attributes:
            attributes.setdefault(attribute, []).append(annotation.name)
    classes = {a.name: a.object_class for a in annotations if a.object_class is not None}
    return attributes, classes


def _times(
    tracker: TrackerFiles, annotations: List[Annotation], unusual: list[str]
) -> dict[str, NDArray[np.float64]]:
    times = {}
    for annotation in annotations:
        if annotation.name in tracker.times:
            try:
                times[annotation.name] = read_numbers(tracker.times[annotation.name])
            except ResultError as error:
                unusual.append(f"{tracker.name}: times not read: {error}")
    return times

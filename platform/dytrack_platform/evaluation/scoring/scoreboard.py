"""Score anybody's result files: every tracker of a folder, by one profile."""

import multiprocessing
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.errors import ResultError
from dytrack_platform.evaluation.scoring.dataset_scores import TrackerScore, summarise
from dytrack_platform.evaluation.scoring.ground_truth import Annotation, Prepared
from dytrack_platform.evaluation.scoring.metrics import Floats
from dytrack_platform.evaluation.scoring.profiles import Profile
from dytrack_platform.evaluation.scoring.result_files import (
    delimiters,
    parse_boxes,
    read_numbers,
    read_text,
)
from dytrack_platform.evaluation.scoring.sequence_scores import SequenceScore, measure, merge


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
        """Return the JSON of ``dytrack score``."""
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
    profile: Profile,
    annotations: Sequence[Annotation],
    trackers: Sequence[TrackerFiles],
    *,
    workers: int = 1,
) -> Scoreboard:
    """Score trackers; one that the profile's toolkit would stop on does not stop the others.

    Args:
        profile: The rules.
        annotations: The benchmark.
        trackers: Whose files to score.
        workers: Processes that read and measure, which is most of the time; what comes of it
            does not depend on them.
    """
    board = Scoreboard(profile=profile)
    matched = {t.name: _match(t, annotations, board.unusual) for t in trackers}
    _note_clipping(profile, annotations, board.unusual)
    work = [(a, {name: found.get(a.name) for name, found in matched.items()}) for a in annotations]
    scores: dict[str, list[SequenceScore]] = {tracker.name: [] for tracker in trackers}
    for outcome in _outcomes(profile, work, board.errors, workers):
        if outcome.scores:
            board.unusual += outcome.about
        for name in scores:
            if name in board.errors:
                continue
            board.unusual += outcome.unusual.get(name, [])
            if name in outcome.errors:
                board.errors[name] = outcome.errors[name]
            else:
                scores[name].append(outcome.scores[name])
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


Paths = dict[str, tuple[Path, ...] | None]
"""Files of boxes by tracker; None where there is none."""


@dataclass(kw_only=True, slots=True)
class _Outcome:
    """What came of one sequence, by tracker."""

    about: list[str] = field(default_factory=list)
    """What is unusual about the annotation itself."""
    scores: dict[str, SequenceScore] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    unusual: dict[str, list[str]] = field(default_factory=dict)


def _outcomes(
    profile: Profile,
    work: Sequence[tuple[Annotation, Paths]],
    errors: Mapping[str, str],
    workers: int,
) -> Iterator[_Outcome]:
    """Score sequences in order; alone, trackers that have an error already are passed over."""
    if workers == 1:
        for annotation, paths in work:
            going = {name: own for name, own in paths.items() if name not in errors}
            yield _score_sequence(profile, annotation, going)
        return
    # Spawned, because a fork of a process with threads (OpenCV's, a caller's Ray) can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        chunk = max(1, len(work) // (8 * workers))
        parts = zip(*work, strict=True) if work else ((), ())
        yield from pool.map(partial(_score_sequence, profile), *parts, chunksize=chunk)


def _score_sequence(profile: Profile, annotation: Annotation, paths: Paths) -> _Outcome:
    outcome = _Outcome()
    try:
        prepared = Prepared(profile, annotation)
    except ResultError as error:
        outcome.errors = dict.fromkeys(paths, str(error))
        return outcome
    results: dict[str, list[Floats]] = {}
    for tracker, own in paths.items():
        notes = outcome.unusual.setdefault(tracker, [])
        try:
            results[tracker] = _read(profile, annotation, tracker, own, notes)
        except ResultError as error:
            outcome.errors[tracker] = str(error)
    outcome.scores = _measure_all(prepared, results, outcome.errors)
    outcome.about = [f"{annotation.name}: {note}" for note in prepared.notes]
    for tracker, score in outcome.scores.items():
        own_notes = [note for note in score.notes if note not in prepared.notes]
        outcome.unusual[tracker] += [f"{tracker}, {annotation.name}: {n}" for n in own_notes]
    return outcome


def _measure_all(
    prepared: Prepared,
    results: Mapping[str, Sequence[Floats]],
    errors: dict[str, str],
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
    notes: list[str],
) -> list[Floats]:
    if paths is None:
        if profile.missing_sequence == "refused":
            raise ResultError(
                f"{tracker}: no result of {annotation.name}, and the toolkit behind "
                f"{profile.name} stops on that; add it or leave the sequence out with --exclude"
            )
        notes.append(f"{tracker}, {annotation.name}: no result, scored as all-zero boxes")
        return [np.zeros((len(annotation.boxes_xywh), 4))]
    boxes = []
    for path in paths:
        text = read_text(path)
        if " and " in (marks := delimiters(text)):
            notes.append(f"{tracker}, {annotation.name}: {path.name} mixes {marks}")
        found = parse_boxes(path, text)
        if np.isinf(found).any():
            row = int(np.isinf(found).any(axis=1).argmax()) + 1
            notes.append(f"{tracker}, {annotation.name}: {path.name} is infinite in row {row}")
        boxes.append(found)
    return boxes


def _match(
    tracker: TrackerFiles, annotations: Sequence[Annotation], unusual: list[str]
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


def _note_clipping(profile: Profile, annotations: Sequence[Annotation], unusual: list[str]) -> None:
    unsized = [a.name for a in annotations if a.image_size is None]
    if profile.clipped and unsized:
        unusual.append(
            f"{len(unsized)} sequences have no image size (meta_info.ini), so their boxes were "
            f"not clipped to the image: {unsized[0]} is the first"
        )


def _groups(annotations: Sequence[Annotation]) -> tuple[dict[str, list[str]], dict[str, str]]:
    attributes: dict[str, list[str]] = {}
    for annotation in annotations:
        for attribute in annotation.attributes:
            attributes.setdefault(attribute, []).append(annotation.name)
    classes = {a.name: a.object_class for a in annotations if a.object_class is not None}
    return attributes, classes


def _times(
    tracker: TrackerFiles, annotations: Sequence[Annotation], unusual: list[str]
) -> dict[str, NDArray[np.float64]]:
    times = {}
    for annotation in annotations:
        if annotation.name in tracker.times:
            try:
                times[annotation.name] = read_numbers(tracker.times[annotation.name])
            except ResultError as error:
                unusual.append(f"{tracker.name}: times not read: {error}")
    return times

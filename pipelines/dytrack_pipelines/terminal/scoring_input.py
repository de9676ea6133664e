"""What ``dytrack score`` and ``dytrack compare`` read: a benchmark, and folders of results."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dytrack_platform.datasets.sequence import VideoSequence
    from dytrack_platform.evaluation.scoring.ground_truth import Annotation
    from dytrack_platform.evaluation.scoring.profiles import Profile
    from dytrack_platform.evaluation.scoring.scoreboard import TrackerFiles


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where the annotations come from."""

    annotations: Path | None
    dataset: str | None
    root: str | None
    split: str | None
    absent: Path | None
    attributes: Path | None
    exclude: tuple[str, ...]


def choose_protocol(name: str | None, source: Source) -> str:
    """Return the profile that was asked for, or the dataset's default.

    Raises:
        ConfigurationError: It does not exist, or neither was given.
    """
    from dytrack_pipelines.terminal import screen
    from dytrack_platform.errors import ConfigurationError
    from dytrack_platform.evaluation.scoring.profiles import PROFILES, default_profile
    from dytrack_platform.evaluation.vot.protocols import VOT_PROFILES

    known = [*PROFILES, *VOT_PROFILES]
    if name is None and source.dataset is None:
        raise ConfigurationError(f"protocol: give one of {', '.join(known)}, or a --dataset")
    if name is None:
        default = default_profile(source.dataset or "")
        screen.say(f"protocol {default.profile}: {default.reason}")
        return default.profile
    if name not in known:
        raise ConfigurationError(f"protocol: must be one of {', '.join(known)}, got {name!r}")
    return name


def load_annotations(source: Source, profile: "Profile") -> list["Annotation"]:
    """Read the benchmark.

    Raises:
        ConfigurationError: Neither a folder of annotations nor a dataset is named, or both are.
        ResultError: The annotations cannot be used, or a sequence to exclude is not there.
        DataError: The dataset cannot be read.
    """
    from dytrack_platform.datasets import readers
    from dytrack_platform.errors import ConfigurationError
    from dytrack_platform.evaluation.report.summary import annotate
    from dytrack_platform.evaluation.scoring.annotations import add_flags, read_annotations

    if (source.annotations is None) == (source.dataset is None):
        raise ConfigurationError("annotations: give --annotations DIR, or --dataset and --root")
    if source.annotations is not None:
        return read_annotations(
            source.annotations,
            absent=source.absent,
            attributes=source.attributes,
            exclude=source.exclude,
        )
    if source.root is None:
        raise ConfigurationError(f"root: --dataset {source.dataset} needs --root DIR")
    dataset = source.dataset or ""
    kept = leave_out(readers.read(dataset, source.root, source.split), source.exclude, dataset)
    found = [annotate(s, with_size=profile.clipped) for s in kept]
    return add_flags(found, absent=source.absent, attributes=source.attributes)


def leave_out(
    sequences: Iterable["VideoSequence"], names: Sequence[str], dataset: str
) -> list["VideoSequence"]:
    """Return sequences without those that ``--exclude`` names.

    Raises:
        ResultError: There is none of such a name.
    """
    from dytrack_platform.errors import ResultError

    found = list(sequences)
    for name in set(names) - {sequence.name for sequence in found}:
        raise ResultError(f"--exclude {name}: {dataset} has no sequence of that name")
    return [sequence for sequence in found if sequence.name not in names]


def score_folder(protocol: str, source: Source, results: Path, workers: int) -> dict[str, Any]:
    """Score a folder of one-pass results."""
    from dytrack_platform.evaluation.scoring.profiles import profile
    from dytrack_platform.evaluation.scoring.scoreboard import find_trackers, score_results

    rules, trackers = profile(protocol), find_trackers(results)
    annotations = load_annotations(source, rules)
    return score_results(rules, annotations, trackers, workers=workers).to_dict()


def score_vot_folder(
    protocol: str, source: Source, results: Path, experiment: str | None, eao: str | None
) -> dict[str, Any]:
    """Score a folder of VOT results.

    Raises:
        ConfigurationError: The annotations are not named, or the range of lengths is none.
        ResultError: The folder holds no tracker.
    """
    from dytrack_platform.errors import ConfigurationError, ResultError
    from dytrack_platform.evaluation.vot.files import (
        experiment_folder,
        read_sequences,
        unusual_results,
    )
    from dytrack_platform.evaluation.vot.protocols import VOT_PROFILES, score_vot

    folder = source.annotations or (Path(source.root) if source.root else None)
    if folder is None:
        raise ConfigurationError("annotations: give VOT's folder of sequences")
    limits = None
    if eao is not None:
        parts = eao.split(",")
        if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
            raise ConfigurationError(f"eao: expected LOW,HIGH as in 46,291, got {eao!r}")
        limits = (int(parts[0]), int(parts[1]))
    rules = VOT_PROFILES[protocol]
    sequences = [s for s in read_sequences(folder) if s.name not in source.exclude]
    scored: dict[str, Any] = {"protocol": protocol, "source": rules.source, "trackers": {}}
    scored |= {"errors": {}, "unusual": []}
    trackers = (
        sorted(child for child in results.iterdir() if child.is_dir()) if results.is_dir() else []
    )
    if not trackers:
        raise ResultError(f"{results}: no folder of results per tracker")
    for tracker in trackers:
        try:
            scored["trackers"][tracker.name] = score_vot(
                rules, sequences, tracker, experiment=experiment, eao_range=limits
            )
            names = [experiment] if experiment else rules.experiments
            odd = unusual_results(experiment_folder(tracker, names), sequences)
            scored["unusual"] += [f"{tracker.name}, {line}" for line in odd]
        except ResultError as error:
            scored["errors"][tracker.name] = str(error)
    return scored


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, beside and renamed."""
    from dytrack_platform.storage.atomic import write_atomically
    from dytrack_platform.storage.outputs import MADE_BY

    write_atomically(path, json.dumps({"generator": MADE_BY, **content}, indent=1) + "\n")


def distinct_trackers(folders: list[Path]) -> list["TrackerFiles"]:
    """Take each folder for one tracker; equal names get their parent's in front.

    Raises:
        ResultError: A folder is missing, holds no result, or is named twice.
    """
    from dataclasses import replace

    from dytrack_platform.errors import ResultError
    from dytrack_platform.evaluation.scoring.scoreboard import find_trackers

    found = []
    for folder in folders:
        own = find_trackers(folder)
        if len(own) != 1:
            raise ResultError(f"{folder}: holds {len(own)} trackers; name the folder of one")
        found.append(own[0])
    names = [tracker.name for tracker in found]
    long = [
        name if names.count(name) == 1 else f"{folder.absolute().parent.name}/{name}"
        for name, folder in zip(names, folders, strict=True)
    ]
    if len(set(long)) != len(long):
        raise ResultError(f"two of the folders are called {long[0]}; rename one of them")
    return [replace(tracker, name=name) for tracker, name in zip(found, long, strict=True)]

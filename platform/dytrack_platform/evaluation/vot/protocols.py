"""Score VOT results: the four protocols, from a tracker's folder to its numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dytrack_platform.datasets.io.regions import FAILURE, Region, Special
from dytrack_platform.errors import ConfigurationError, ResultError
from dytrack_platform.evaluation.scoring.dataset_scores import plain_number
from dytrack_platform.evaluation.vot.files import (
    Run,
    VotSequence,
    experiment_folder,
    read_repetitions,
    read_run,
)
from dytrack_platform.evaluation.vot.measures import (
    Floats,
    Fragment,
    codes,
    eao_curve,
    eao_score,
    fragments,
    longterm_curves,
    longterm_thresholds,
    multistart_partial,
    multistart_progress,
    pysot_accuracy,
    pysot_eao_curve,
    supervised_accuracy,
    unsupervised_accuracy,
)
from dytrack_platform.evaluation.vot.regions import overlap, polygon_overlap


@dataclass(frozen=True, kw_only=True, slots=True)
class VotProfile:
    """The rules of one VOT protocol."""

    name: str
    source: str
    experiments: tuple[str, ...]
    """Folders that may hold its results, the first that is there counts."""
    regions: Literal["pixels", "polygons"] = "pixels"
    """vot-toolkit's pixel grid, or pysot's polygons with one pixel more."""
    eao_range: tuple[int, int] = (0, 0)
    """Lengths whose mean is the EAO; a challenge's year decides."""
    burn_in: int = 10
    """Frames after a start that accuracy leaves out."""
    sensitivity: float = 30.0
    """Exponent of the robustness axis of the AR plot."""
    threshold: float = 0.1
    """Overlap at or below which a multistart run is failing."""
    grace: int = 10
    """Failing frames in a row that end a multistart run."""
    resolution: int = 100
    """Thresholds of the long-term curves."""


_TOOLKIT = "vot-toolkit 0.7.4"
VOT_PROFILES: dict[str, VotProfile] = {
    p.name: p
    for p in (
        VotProfile(
            name="vot-supervised",
            source=_TOOLKIT,
            experiments=("baseline", "supervised"),
            eao_range=(46, 291),  # VOT2019; 2015/16 108-371, 2017/18 100-356
        ),
        VotProfile(
            name="vot-multistart",
            source=_TOOLKIT,
            experiments=("multistart", "baseline"),
            eao_range=(115, 755),  # VOT2020 to 2022
        ),
        VotProfile(
            name="vot-longterm",
            source=_TOOLKIT,
            experiments=("longterm", "unsupervised"),
        ),
        VotProfile(
            name="vot-supervised-pysot",
            source="StrangerZhang/pysot-toolkit 8b5ced3",
            experiments=("baseline", "supervised"),
            regions="polygons",
            eao_range=(100, 356),  # VOT2017/18
        ),
    )
}
"""VOT's protocols by name."""


def score_vot(
    profile: VotProfile,
    sequences: Sequence[VotSequence],
    tracker: Path,
    *,
    experiment: str | None = None,
    eao_range: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Score one tracker.

    Args:
        profile: The rules.
        sequences: Annotation, in the workspace's order.
        tracker: Folder of the tracker's results.
        experiment: Folder of the experiment in it; the profile's names by default.
        eao_range: Lengths of the EAO in place of the profile's.

    Returns:
        Plain JSON: the tracker's scores and those of its sequences.

    Raises:
        ResultError: A result is missing or of another length.
        ConfigurationError: The range of lengths is not one.
    """
    low, high = eao_range or profile.eao_range
    if low > high:
        raise ConfigurationError(f"eao: expected a rising range of lengths, got {low} to {high}")
    folder = experiment_folder(tracker, [experiment] if experiment else profile.experiments)
    if profile.name == "vot-multistart":
        return _multistart(profile, sequences, folder, (low, high))
    if profile.name == "vot-longterm":
        return _longterm(profile, sequences, folder)
    if profile.regions == "polygons":
        return _supervised_pysot(profile, sequences, folder, (low, high))
    return _supervised(profile, sequences, folder, (low, high))


def _overlaps(
    regions: Sequence[Region], truth: Sequence[Region], size: tuple[int, int] | None
) -> Floats:
    return np.array([overlap(a, b, size) for a, b in zip(regions, truth, strict=True)])


def _supervised(
    profile: VotProfile, sequences: Sequence[VotSequence], folder: Path, eao: tuple[int, int]
) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = {}
    cut: list[Fragment] = []
    for sequence in sequences:
        runs = read_repetitions(folder, sequence)
        accuracies, failures = [], 0
        for run in runs:
            values = _overlaps(run.regions, sequence.regions, sequence.size)
            accuracies.append(supervised_accuracy(run.regions, values, burn_in=profile.burn_in)[0])
            failures += len(codes(run.regions, FAILURE))
            cut += fragments(run.regions, values)
        rows[sequence.name] = {
            "accuracy": float(np.mean(accuracies)),
            "robustness": failures / len(runs),
            "frames": len(sequence),
        }
    # Sequences count by their length, as if all frames were one long video.
    lengths = np.array([row["frames"] for row in rows.values()])
    accuracy = float(np.average([row["accuracy"] for row in rows.values()], weights=lengths))
    failed = float(np.average([row["robustness"] for row in rows.values()], weights=lengths))
    curve = eao_curve(cut)
    return {
        "accuracy": accuracy,
        "robustness": failed,
        # The chance to survive ``sensitivity`` frames, if failures come at random at the observed
        # rate.
        "ar_robustness": math.exp(-profile.sensitivity * failed / float(lengths.mean())),
        "eao": plain_number(eao_score(curve, *eao)),
        "eao_curve": curve.tolist(),
        "eao_range": list(eao),
        "sequences": rows,
    }


def _multistart(
    profile: VotProfile, sequences: Sequence[VotSequence], folder: Path, eao: tuple[int, int]
) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = {}
    length = eao[1]
    total, weight = np.zeros(length), np.zeros(length)
    for sequence in sequences:
        cut, progress, overlap_sum, frames = [], 0, 0.0, 0
        for run, truth in _anchored(folder, sequence):
            values = _overlaps(run.regions, truth, sequence.size)
            reached = multistart_progress(
                values, truth, threshold=profile.threshold, grace=profile.grace
            )
            progress, frames = progress + reached, frames + len(values)
            overlap_sum += float(values[:reached].sum())
            # What comes after the failure was tracked by chance, and counts as lost.
            values[reached:] = 0.0
            cut.append(Fragment(values, failed=reached < len(values)))
        part, active = multistart_partial(cut, length)
        # A sequence weighs by its runs that are still going at that length.
        total, weight = total + part * active, weight + active
        rows[sequence.name] = {
            "accuracy": overlap_sum / progress if progress else 0.0,
            "robustness": progress / frames,
            "progress": progress,
            "frames": len(sequence),
        }
    reached = sum(row["progress"] for row in rows.values())
    summed = sum(row["accuracy"] * row["progress"] for row in rows.values())
    lengths = [row["frames"] for row in rows.values()]
    curve = np.divide(total, weight, out=np.zeros(length), where=weight > 0)
    return {
        "accuracy": summed / reached if reached else 0.0,
        "robustness": float(np.average([r["robustness"] for r in rows.values()], weights=lengths)),
        "eao": plain_number(eao_score(curve, *eao)),
        "eao_curve": curve.tolist(),
        "eao_range": list(eao),
        "sequences": rows,
    }


def _anchored(folder: Path, sequence: VotSequence) -> list[tuple[Run, Sequence[Region]]]:
    """Read the run of every anchor with the truth in the order it was seen."""
    forward, backward = sequence.anchors
    order = [(k, sequence.regions[k:]) for k in forward]
    # Anchors in the second half run backwards: every run gets the longer part of the video.
    order += [(k, sequence.regions[k::-1]) for k in backward]
    name = sequence.name
    return [(read_run(folder / name / f"{name}_{k:08d}", len(truth)), truth) for k, truth in order]


def _longterm(
    profile: VotProfile, sequences: Sequence[VotSequence], folder: Path
) -> dict[str, Any]:
    runs = {sequence.name: read_repetitions(folder, sequence) for sequence in sequences}
    # One set of thresholds for all sequences: F is read off the averaged curves, at one threshold
    # that a user could set.
    said = np.concatenate([run.confidence for own in runs.values() for run in own])
    thresholds = longterm_thresholds(said, profile.resolution)
    rows: dict[str, dict[str, Any]] = {}
    precision, recall = np.zeros(len(thresholds)), np.zeros(len(thresholds))
    for sequence in sequences:
        visible = sum(not isinstance(region, Special) for region in sequence.regions)
        if visible == 0:
            raise ResultError(f"{sequence.name}: the target is never there, so recall is undefined")
        curves, accuracies = [], []
        for run in runs[sequence.name]:
            values = _overlaps(run.regions, sequence.regions, sequence.size)
            curves.append(longterm_curves(values, run.confidence, visible, thresholds))
            accuracies.append(unsupervised_accuracy(run.regions, sequence.regions, values))
        own_precision, own_recall = np.mean(curves, axis=0)
        precision, recall = precision + own_precision, recall + own_recall
        rows[sequence.name] = _best(own_precision, own_recall) | {
            "accuracy": float(np.mean(accuracies)),
            "frames": len(sequence),
        }
    lengths = [row["frames"] for row in rows.values()]
    accuracy = float(np.average([row["accuracy"] for row in rows.values()], weights=lengths))
    precision, recall = precision / len(sequences), recall / len(sequences)
    return {
        **_best(precision, recall),
        "accuracy": accuracy,
        "precision_curve": precision.tolist(),
        "recall_curve": recall.tolist(),
        "thresholds": [t if math.isfinite(t) else str(t) for t in thresholds.tolist()],
        "sequences": rows,
    }


def _best(precision: Floats, recall: Floats) -> dict[str, Any]:
    """Read precision and recall where F is largest."""
    total = precision + recall
    # The harmonic mean: neither silence nor guessing pays.
    f = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    at = int(np.argmax(f))
    return {"precision": float(precision[at]), "recall": float(recall[at]), "f": float(f[at])}


def _supervised_pysot(
    profile: VotProfile, sequences: Sequence[VotSequence], folder: Path, eao: tuple[int, int]
) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = {}
    whole: list[tuple[Sequence[Region], Floats]] = []
    pooled, failed, frames, repetitions = [], 0.0, 0, 1
    for sequence in sequences:
        runs = read_repetitions(folder, sequence)
        repetitions = len(runs)
        size = sequence.size
        # Last column and row, where vot-toolkit takes width and height: pysot's region.c.
        bounds = None if size is None else (size[0] - 1.0, size[1] - 1.0)
        scored = []
        for run in runs:
            pairs = zip(run.regions, sequence.regions, strict=True)
            values = np.array([polygon_overlap(a, b, bounds) for a, b in pairs])
            whole.append((run.regions, values))
            scored.append(pysot_accuracy(run.regions, values, burn_in=profile.burn_in))
        own = _nan_mean(np.stack(scored), axis=0)
        failures = float(np.mean([len(codes(run.regions, FAILURE)) for run in runs]))
        pooled.append(own)
        failed, frames = failed + failures, frames + len(own)
        rows[sequence.name] = {
            "accuracy": plain_number(float(_nan_mean(own[None], axis=1)[0])),
            "robustness": 100.0 * failures / len(own),
            "frames": len(own),
        }
    curve = pysot_eao_curve(whole, 1.0 / repetitions)
    low, high = eao
    part = curve[low - 1 : high]
    return {
        "accuracy": plain_number(float(_nan_mean(np.concatenate(pooled)[None], axis=1)[0])),
        "robustness": 100.0 * failed / frames,
        "eao": plain_number(float(part.mean()) if len(part) else math.nan),
        "eao_curve": curve.tolist(),
        "eao_range": list(eao),
        "sequences": rows,
    }


def _nan_mean(values: Floats, axis: int) -> Floats:
    """Mean over known values; NaN, without a warning, where there is none."""
    known = ~np.isnan(values)
    counts = known.sum(axis=axis)
    sums = np.where(known, values, 0.0).sum(axis=axis)
    means: Floats = np.divide(sums, counts, out=np.full(counts.shape, np.nan), where=counts > 0)
    return means

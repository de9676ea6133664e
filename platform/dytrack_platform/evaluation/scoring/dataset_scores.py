"""Average the scores of sequences into those of a tracker, of an attribute and of a class."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.errors import ResultError
from dytrack_platform.evaluation.scoring.metrics import Counts, Floats, speed
from dytrack_platform.evaluation.scoring.profiles import Profile, SpeedRule
from dytrack_platform.evaluation.scoring.sequence_scores import (
    SequenceScore,
    curve_area,
    norm_precision_score,
    precision_score,
)

_EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Scores of any set of frames, in [0, 1]; NaN where nothing could be scored."""

    success_auc: float
    precision20: float | None
    """At 20 pixels, or what the profile reports in its place; None where it reports nothing."""
    norm_precision20: float | None
    """At 0.20, or what the profile reports in its place; None where it has no such measure."""
    success_rate: float
    """Frames whose overlap is above 0.5."""
    mean_overlap: float
    success_curve: Floats
    precision_curve: Floats
    norm_precision_curve: Floats | None
    sequences: int

    def named(self, *, curves: bool) -> dict[str, Any]:
        """Return JSON types; NaN becomes None."""
        plain: dict[str, Any] = {
            "success_auc": plain_number(self.success_auc),
            "precision20": plain_number(self.precision20),
            "norm_precision20": plain_number(self.norm_precision20),
            "success_rate": plain_number(self.success_rate),
            "mean_overlap": plain_number(self.mean_overlap),
        }
        if curves:
            for name in ("success_curve", "precision_curve", "norm_precision_curve"):
                curve = getattr(self, name)
                plain[name] = None if curve is None else [plain_number(v) for v in curve]
        return plain


def plain_number(value: float | None) -> float | None:
    """Return a Python float, or None for NaN and None: JSON has no NaN."""
    return None if value is None or math.isnan(value) else float(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackerScore:
    """What a profile says about a tracker on a dataset."""

    profile: Profile
    overall: Scores
    sequences: dict[str, SequenceScore]
    attributes: dict[str, Scores] = field(default_factory=dict)
    ao: float | None = None
    """GOT-10k's average overlap over all frames of all sequences."""
    sr50: float | None = None
    sr75: float | None = None
    mao: float | None = None
    """Mean over object classes of the mean AO of their sequences (the paper's mAO)."""
    class_ao: dict[str, float] = field(default_factory=dict)
    """Mean AO of the sequences of each object class."""
    msr50: float | None = None
    coverage: float | None = None
    """Frames with a usable result over frames in all (TrackingNet)."""
    fps: float | None = None
    """Frames per second by the profile's rule."""
    sequence_fps: dict[str, float] = field(default_factory=dict)
    """The same of each sequence that has times."""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON of ``dytrack score`` for one tracker."""
        plain = self.overall.named(curves=True)
        for name in ("ao", "sr50", "sr75", "mao", "msr50", "coverage", "fps"):
            if (value := getattr(self, name)) is not None:
                plain[name] = plain_number(value)
        pooled = self.profile.average == "frames"
        plain["sequences"] = {}
        for name, score in self.sequences.items():
            row = sequence_scores(score).named(curves=False) | {"frames": score.frames}
            if pooled:
                row |= {"ao": row["mean_overlap"], "sr50": row["success_rate"]}
                row["sr75"] = plain_number(float(score.success_curve[75]))
            if name in self.sequence_fps:
                row["fps"] = self.sequence_fps[name]
            plain["sequences"][name] = row
        if self.class_ao:
            plain["class_ao"] = dict(self.class_ao)
        plain["attributes"] = {
            name: scores.named(curves=False) | {"sequences": scores.sequences}
            for name, scores in self.attributes.items()
        }
        return plain


def sequence_scores(score: SequenceScore) -> Scores:
    """Read the scores of one sequence off its curves."""
    return _scores(
        score.profile,
        score.success_curve,
        score.precision_curve,
        score.norm_precision_curve,
        success_rate=score.success_rate,
        mean_overlap=score.mean_overlap,
        sequences=1,
    )


def _scores(
    profile: Profile,
    success: Floats,
    precision: Floats,
    norm: Floats | None,
    *,
    success_rate: float,
    mean_overlap: float,
    sequences: int,
) -> Scores:
    return Scores(
        success_auc=curve_area(profile, success, profile.overlap_thresholds),
        precision20=precision_score(profile, precision),
        norm_precision20=None if norm is None else norm_precision_score(profile, norm),
        success_rate=success_rate,
        mean_overlap=mean_overlap,
        success_curve=success,
        precision_curve=precision,
        norm_precision_curve=norm,
        sequences=sequences,
    )


def average(profile: Profile, scores: Sequence[SequenceScore]) -> Scores:
    """Average sequences by the profile's rule.

    Raises:
        ResultError: There is no sequence.
    """
    if not scores:
        raise ResultError(f"{profile.name}: there is no sequence to average over")
    if profile.average == "frames":
        return _pooled(profile, scores)
    norms = [s.norm_precision_curve for s in scores if s.norm_precision_curve is not None]
    return _scores(
        profile,
        _mean_curve(profile, [s.success_curve for s in scores]),
        _mean_curve(profile, [s.precision_curve for s in scores]),
        _mean_curve(profile, norms) if norms else None,
        success_rate=float(np.mean([s.success_rate for s in scores])),
        mean_overlap=_mean_known(s.mean_overlap for s in scores),
        sequences=len(scores),
    )


def _mean_curve(profile: Profile, curves: Sequence[Floats]) -> Floats:
    rows = np.stack(curves)
    if profile.average == "nonzero-sequences":
        # MATLAB takes a curve of zeros for a sequence that was not run, and leaves it out. A
        # tracker that fails on every frame of a sequence is thereby forgiven; that is its rule.
        kept = rows[rows.sum(axis=1) > _EPSILON]
        rows = kept if len(kept) else rows
    return np.asarray(rows.mean(axis=0), dtype=np.float64)


def _pooled(profile: Profile, scores: Sequence[SequenceScore]) -> Scores:
    frames = sum(s.frames for s in scores)
    # Two denominators: GOT-10k divides curves by all frames and AO by those with an annotation.
    valid = sum(s.overlap_frames for s in scores)

    def ratio(counts: Sequence[Counts]) -> Floats:
        return np.asarray(np.sum(counts, axis=0) / max(frames, 1), dtype=np.float64)

    success = ratio([s.success for s in scores])
    norms = [s.norm_precision for s in scores if s.norm_precision is not None]
    return _scores(
        profile,
        success,
        ratio([s.precision for s in scores]),
        ratio(norms) if norms else None,
        # The threshold in the middle is 0.5.
        success_rate=float(success[len(success) // 2]),
        mean_overlap=sum(s.overlap_sum for s in scores) / valid if valid else float("nan"),
        sequences=len(scores),
    )


def _mean_known(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def summarise(
    profile: Profile,
    scores: Sequence[SequenceScore],
    *,
    attributes: Mapping[str, Sequence[str]] | None = None,
    classes: Mapping[str, str] | None = None,
    times_s: Mapping[str, NDArray[np.float64]] | None = None,
) -> TrackerScore:
    """Return the scores of a tracker over a dataset.

    Args:
        profile: The rules that the sequence scores were made by.
        scores: One per sequence.
        attributes: Sequence names by attribute.
        classes: Object class by sequence name (GOT-10k's mAO).
        times_s: Seconds per frame by sequence name, of any shape.

    Raises:
        ResultError: There is no sequence.
    """
    by_name = {score.name: score for score in scores}
    if profile.average != "frames":  # averages over classes are GOT-10k's alone
        classes = None
    class_ao = _class_means(by_name, classes or {}, "mean_overlap")
    class_sr = _class_means(by_name, classes or {}, "success_rate")
    overall = average(profile, scores)
    of_attributes = {}
    for name, members in (attributes or {}).items():
        # An attribute that few sequences have says little about a tracker, and some toolkits leave
        # it out.
        present = [by_name[member] for member in members if member in by_name]
        if len(present) >= max(profile.least_attribute, 1):
            of_attributes[name] = average(profile, present)
    return TrackerScore(
        profile=profile,
        overall=overall,
        sequences=by_name,
        attributes=of_attributes,
        ao=overall.mean_overlap if profile.average == "frames" else None,
        sr50=overall.success_rate if profile.average == "frames" else None,
        sr75=float(overall.success_curve[75]) if profile.average == "frames" else None,
        mao=float(np.mean(list(class_ao.values()))) if class_ao else None,
        class_ao=class_ao,
        msr50=float(np.mean(list(class_sr.values()))) if class_sr else None,
        coverage=(
            sum(s.covered or 0 for s in scores) / max(sum(s.frames for s in scores), 1)
            if profile.missing_sequence == "zeros"
            else None
        ),
        fps=frame_rate(profile.speed, times_s or {}),
        sequence_fps={
            name: own
            for name, times in (times_s or {}).items()
            if (own := frame_rate(profile.speed, {name: times})) is not None
        },
    )


def _class_means(
    scores: Mapping[str, SequenceScore], classes: Mapping[str, str], measure: str
) -> dict[str, float]:
    """Average a measure over the sequences of each class that has a scored frame."""
    members: dict[str, list[float]] = {}
    for name, score in scores.items():
        if name in classes and score.frames:
            members.setdefault(classes[name], []).append(getattr(score, measure))
    return {name: float(np.mean(values)) for name, values in members.items()}


def frame_rate(rule: SpeedRule, times_s: Mapping[str, NDArray[np.float64]]) -> float | None:
    """Return frames per second by a toolkit's rule.

    Args:
        rule: See :class:`~dytrack_platform.evaluation.scoring.profiles.Profile`.
        times_s: Seconds per frame by sequence name, of any shape; the start is among them.

    Returns:
        None where no sequence has a positive time.
    """
    known = [times for times in times_s.values() if (times > 0).any()]
    if not known:
        return None
    if rule == "pooled-reciprocals":
        return speed(np.concatenate([times.ravel() for times in known])).mean_of_reciprocals
    if rule == "reciprocals":
        # A mean of rates is never below the rate of the sum: one fast frame weighs as much as a
        # slow one. That is why the report shows all rules side by side.
        return float(np.mean([speed(times).mean_of_reciprocals for times in known]))
    return float(np.mean([speed(times).frames_over_time for times in known]))

"""Follow a profile's rules: from annotated and predicted boxes to the scores of a sequence.

The frame rules are in one place, :func:`measure`, and run on all results of a sequence at once:
what depends on the annotation alone is prepared once, in ``ground_truth.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.evaluation.scoring.alignment import Mask, align
from dytrack_platform.evaluation.scoring.ground_truth import Prepared
from dytrack_platform.evaluation.scoring.metrics import (
    Columns,
    Counts,
    Floats,
    ThresholdCounter,
    are_whole,
    centre_errors,
    columns,
    mean_area,
    normalised_errors,
    overlaps,
    trapezoid_area,
)
from dytrack_platform.evaluation.scoring.profiles import Invalid, Profile


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceScore:
    """The scores of one result on one sequence, with the counts they are made of."""

    profile: Profile
    name: str
    frames: int
    """Frames in the denominator, over all repetitions."""
    success: Counts
    """Frames above each overlap threshold."""
    precision: Counts
    """Frames within each pixel threshold."""
    norm_precision: Counts | None
    """Frames within each normalised threshold; None where the profile has no such measure."""
    overlap_sum: float
    """Sum of the overlaps of the frames whose annotation is valid."""
    overlap_frames: int
    """How many those are."""
    covered: int | None
    """Frames with a result that is neither NaN nor all zero, where the profile reports it."""
    notes: tuple[str, ...] = ()
    """What was unusual about the annotation or the result, and what the profile made of it."""

    @property
    def success_curve(self) -> Floats:
        """Fraction of frames at each overlap threshold; NaN without a scored frame."""
        return _ratio(self.success, self.frames)

    @property
    def precision_curve(self) -> Floats:
        """Fraction of frames at each pixel threshold."""
        return _ratio(self.precision, self.frames)

    @property
    def norm_precision_curve(self) -> Floats | None:
        """Fraction of frames at each normalised threshold."""
        return None if self.norm_precision is None else _ratio(self.norm_precision, self.frames)

    @property
    def mean_overlap(self) -> float:
        """Mean overlap over frames with a valid annotation: GOT-10k's AO under its profile."""
        return self.overlap_sum / self.overlap_frames if self.overlap_frames else float("nan")

    @property
    def success_rate(self) -> float:
        """The success curve at 0.5, the middle of its thresholds."""
        return float(self.success_curve[len(self.success) // 2])


def _ratio(counts: Counts, frames: int) -> Floats:
    if frames == 0:
        return np.full(len(counts), np.nan)
    return counts / frames


def merge(repetitions: Sequence[SequenceScore]) -> SequenceScore:
    """Pool the frames of several runs on the same sequence."""
    first, *others = repetitions
    if not others:
        return first
    norm = [r.norm_precision for r in repetitions if r.norm_precision is not None]
    return replace(
        first,
        frames=sum(r.frames for r in repetitions),
        success=np.sum([r.success for r in repetitions], axis=0),
        precision=np.sum([r.precision for r in repetitions], axis=0),
        norm_precision=np.sum(norm, axis=0) if norm else None,
        overlap_sum=float(np.sum([r.overlap_sum for r in repetitions])),
        overlap_frames=sum(r.overlap_frames for r in repetitions),
        covered=None if first.covered is None else sum(r.covered or 0 for r in repetitions),
        notes=tuple(dict.fromkeys(note for r in repetitions for note in r.notes)),
    )


def curve_area(profile: Profile, curve: Floats, thresholds: Floats) -> float:
    """Area under a curve by the profile's rule, as a fraction."""
    if profile.area == "trapezoid":
        return trapezoid_area(curve, thresholds)
    return mean_area(curve)


def precision_score(profile: Profile, curve: Floats) -> float | None:
    """The one number of a precision curve: at 20 pixels, the area, or none."""
    if profile.precision_report == "none":
        return None
    if profile.precision_report == "area":
        return curve_area(profile, curve, profile.pixel_thresholds)
    return float(curve[20])


def norm_precision_score(profile: Profile, curve: Floats) -> float:
    """The one number of a normalised precision curve: at 0.20, or the area."""
    if profile.norm_report == "area":
        return curve_area(profile, curve, profile.scaled_thresholds)
    return float(curve[20])


def measure(prepared: Prepared, results: Sequence[NDArray[np.generic]]) -> list[SequenceScore]:
    """Score several results on one sequence: several trackers, or repetitions of one.

    Args:
        prepared: The annotation under the profile.
        results: Boxes of each result, (M, 4) pixels; M may differ from the annotation's length
            where the profile has a rule for it. Not changed.

    Returns:
        One score per result, in order.

    Raises:
        ResultError: The toolkit would stop on a result.
    """
    profile, annotation = prepared.profile, prepared.annotation
    notes: list[list[str]] = [list(prepared.notes) for _ in results]
    if not results:
        return []
    shortest = len(annotation.boxes_xywh)
    if profile.shorter == "cut-annotation":
        shortest = min(shortest, *(len(result) for result in results))
    if shortest < len(annotation.boxes_xywh):  # the one rule that ties the annotation to a result
        return [_cut_annotation(prepared, result) for result in results]
    boxes = _stacked(prepared, results, notes)
    covered = _covered(boxes) if profile.missing_sequence == "zeros" else [None] * len(results)
    # Repairs come first and leaving frames out second: a repair may copy the box of a frame that is
    # then left out, as the toolkits' own loops do.
    if prepared.rows is not None:
        boxes = Columns(*(values.take(prepared.rows, axis=1) for values in boxes))
    overlap, error, norm = _measures(prepared, prepared.image_rules(boxes))
    # AO averages only frames with a usable annotation, while the curves below count the others as
    # failures or hits: the -1 that marks them must not enter the sum.
    valid = _valid_overlaps(prepared)
    sums = overlap.sum(axis=1) if valid is None else overlap.compress(valid, axis=1).sum(axis=1)
    counters = _counters(profile)
    success, precision = counters.overlap.above(overlap), counters.pixel.within(error)
    # Counts stay whole numbers until sequences are averaged: toolkits that pool frames divide once
    # at the end, and a mean of ratios would not be theirs.
    norm_precision = None if norm is None else counters.scaled.within(norm)
    return [
        SequenceScore(
            profile=profile,
            name=annotation.name,
            frames=overlap.shape[1],
            success=success[k],
            precision=precision[k],
            norm_precision=None if norm_precision is None else norm_precision[k],
            overlap_sum=float(sums[k]),
            overlap_frames=overlap.shape[1] if valid is None else int(np.count_nonzero(valid)),
            covered=covered[k],
            notes=tuple(own),
        )
        for k, own in enumerate(notes)
    ]


class _Counters(NamedTuple):
    """The thresholds of a profile's curves."""

    overlap: ThresholdCounter
    pixel: ThresholdCounter
    scaled: ThresholdCounter


@cache
def _counters(profile: Profile) -> _Counters:
    return _Counters(
        ThresholdCounter(profile.overlap_thresholds, or_equal=profile.success_or_equal),
        ThresholdCounter(profile.pixel_thresholds),
        ThresholdCounter(profile.scaled_thresholds),
    )


def _stacked(
    prepared: Prepared,
    results: Sequence[NDArray[np.generic]],
    notes: Sequence[list[str]],
) -> Columns:
    """Return (R, N) columns of all results, aligned and repaired by the profile's rules."""
    profile, annotation = prepared.profile, prepared.annotation
    truth = annotation.boxes_xywh
    stacked = np.empty((4, len(results), len(truth)))
    for k, result in enumerate(results):
        if len(result) == len(truth):
            stacked[:, k] = result.T
    _note_other_starts(prepared, results, notes)
    # Nearly every result is whole; the repairs look at single frames and cost more than the scores.
    whole = are_whole(Columns(*stacked))  # such results of the right length need no repair
    for k, (result, own) in enumerate(zip(results, notes, strict=True)):
        if not whole[k] or len(result) != len(truth):
            stacked[:, k] = align(profile, annotation.name, truth, result, own).T
    if profile.first_frame == "annotation":
        stacked[:, :, 0] = truth[0][:, None]
    return Columns(*stacked)


def _note_other_starts(
    prepared: Prepared, results: Sequence[NDArray[np.generic]], notes: Sequence[list[str]]
) -> None:
    """Tell of results that do not start where the annotation does."""
    truth = prepared.annotation.boxes_xywh
    if len(truth) == 0 or not all(len(result) for result in results):
        return
    omitted = prepared.profile.omitted_starts.get(prepared.annotation.name, 0)
    whole = [len(result) == len(truth) + omitted for result in results]
    rows = [r[omitted if early else 0] for r, early in zip(results, whole, strict=True)]
    firsts = columns(np.array(rows))
    if all((first == given).all() for first, given in zip(firsts, truth[0], strict=True)):
        return
    for overlap, own in zip(overlaps(firsts, columns(truth[:1])).tolist(), notes, strict=True):
        if overlap < _SAME_START:
            own.append(
                f"the box of frame 1 overlaps the annotation by {overlap:.2f}, though it is given "
                "to the tracker: is this a file of another sequence or dataset?"
            )


_SAME_START = 0.5  # far below what rounding to whole pixels or counting from 1 does


def _covered(boxes: Columns) -> list[int | None]:
    """Count, for each result, the boxes that are neither NaN nor all zero."""
    size = sum(np.abs(values) for values in boxes)  # NaN is not above 0
    return [int(count) for count in np.count_nonzero(size > 0, axis=1)]


def _measures(prepared: Prepared, boxes: Columns) -> tuple[Floats, Floats, Floats | None]:
    """Overlap, centre error and normalised error of every frame, rules for bad frames applied."""
    profile, truth = prepared.profile, prepared.boxes
    overlap = overlaps(boxes, truth, profile.edges)
    error = centre_errors(boxes, truth)
    norm = None
    if profile.norm_scale is not None:
        norm = normalised_errors(boxes, truth, profile.norm_scale)
        _mark(norm, prepared.invalid_norm, profile.invalid_norm)
        _mark(norm, prepared.failed, "wrong")
    _mark(error, prepared.invalid_error, profile.invalid_precision)
    _mark(error, prepared.failed, "wrong")
    for mask in (prepared.invalid_overlap, prepared.failed):
        if mask is not None:
            # Below every threshold, also below a threshold of 0 that counts values equal to it.
            overlap[:, mask] = -1.0
    return overlap, error, norm


def _mark(errors: Floats, invalid: Mask | None, verdict: Invalid) -> None:
    """Give invalid frames an error that every threshold accepts, or none."""
    if invalid is not None:
        errors[:, invalid] = -1.0 if verdict == "correct" else np.inf


def _valid_overlaps(prepared: Prepared) -> Mask | None:
    invalid, failed = prepared.invalid_overlap, prepared.failed
    if invalid is None or failed is None:
        either = failed if invalid is None else invalid
        return None if either is None else ~either
    return ~(invalid | failed)


def _cut_annotation(prepared: Prepared, result: NDArray[np.generic]) -> SequenceScore:
    """Score over the frames that a shorter result has."""
    annotation, frames = prepared.annotation, len(result)
    absent = None if annotation.absent is None else annotation.absent[:frames]
    shorter = replace(annotation, boxes_xywh=annotation.boxes_xywh[:frames], absent=absent)
    score = measure(Prepared(prepared.profile, shorter), [result])[0]
    note = (
        f"{frames} results for {len(annotation.boxes_xywh)} frames: scored over the first {frames}"
    )
    return replace(score, notes=(*score.notes, note))

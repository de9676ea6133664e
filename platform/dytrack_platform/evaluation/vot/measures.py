"""VOT's measures as vot-toolkit 0.7.4 computes them, and the supervised ones as pysot does.

Everything works on overlaps per frame; ``protocols.py`` reads the runs they come from.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.datasets.io.regions import FAILURE, INITIALISATION, UNKNOWN, Region, Special
from dytrack_platform.evaluation.vot.regions import is_empty

Floats = NDArray[np.float64]


def codes(regions: Sequence[Region], code: int) -> list[int]:
    """Return the frames (from 0) that hold a code."""
    return [k for k, r in enumerate(regions) if isinstance(r, Special) and r.code == code]


def supervised_accuracy(
    regions: Sequence[Region], overlaps: Floats, *, burn_in: int = 10
) -> tuple[float, int]:
    """Mean overlap without unknown frames, failures and the frames after each start.

    Returns:
        The mean (0 where nothing is left) and the number of frames it is over.
    """
    kept = np.ones(len(regions), dtype=np.bool_)
    kept[codes(regions, UNKNOWN)] = False
    kept[codes(regions, FAILURE)] = False
    for start in codes(regions, INITIALISATION):
        # A restarted tracker was just given the truth: its first frames say nothing about it.
        kept[start : start + burn_in] = False
    return (float(overlaps[kept].mean()), int(kept.sum())) if kept.any() else (0.0, 0)


def unsupervised_accuracy(
    regions: Sequence[Region], truth: Sequence[Region], overlaps: Floats
) -> float:
    """Mean overlap without the given frame and without frames that either side leaves unknown.

    Returns:
        The mean, 0 where nothing is left.
    """
    kept = np.ones(len(regions), dtype=np.bool_)
    for side, code in ((regions, INITIALISATION), (regions, UNKNOWN), (truth, UNKNOWN)):
        kept[codes(side, code)] = False
    kept[codes(regions, FAILURE)] = False
    return float(overlaps[kept].mean()) if kept.any() else 0.0


@dataclass(frozen=True, slots=True)
class Fragment:
    """A stretch from a start to a failure or to the end."""

    overlaps: Floats
    """The start's own frame first; the failure's frame is not among them."""
    failed: bool


def fragments(regions: Sequence[Region], overlaps: Floats) -> list[Fragment]:
    """Cut a supervised run at its failures."""
    failures, starts = codes(regions, FAILURE), codes(regions, INITIALISATION)
    if not failures:
        return [Fragment(overlaps, failed=False)]
    # Not strict: a run may end in a failure, after which nothing starts again.
    cut = [Fragment(overlaps[s:f], failed=True) for s, f in zip(starts, failures, strict=False)]
    if len(starts) > len(failures):
        cut.append(Fragment(overlaps[starts[-1] :], failed=False))
    return cut


def eao_curve(cut: Sequence[Fragment]) -> Floats:
    """Expected average overlap at each length, from fragments.

    A failed fragment goes on with zeros to the longest one's end; a whole one stops counting
    where it ends. Point j is the mean of overlaps 1 to j; point 0 is the first frame's own.
    """
    longest = max(len(fragment.overlaps) for fragment in cut)
    values = np.zeros((len(cut), longest))
    counted = np.zeros((len(cut), longest))
    for row, fragment in enumerate(cut):
        length = len(fragment.overlaps)
        values[row, :length] = fragment.overlaps
        # A failure is known to stay one, so its zeros count on; what a tracker would have done
        # after the end of a video is not known, so it does not.
        counted[row, : longest if fragment.failed else length] = 1
    means = values.copy()
    # From 1: at the start's own frame the overlap is given, not earned.
    means[:, 1:] = np.cumsum(values[:, 1:], axis=1) / np.arange(1, longest)
    curve: Floats = np.sum(means * counted, axis=0) / counted.sum(axis=0)
    return curve


def eao_score(curve: Floats, low: int, high: int) -> float:
    """Mean of the curve over lengths low to high, counted from 0, both included."""
    part = curve[low : high + 1]
    return float(part.mean()) if len(part) else float("nan")


def multistart_progress(
    overlaps: Floats, truth: Sequence[Region], *, threshold: float = 0.1, grace: int = 10
) -> int:
    """Frames before a run fails: before ``grace`` frames in a row at or below ``threshold``."""
    left = grace
    for frame, (value, region) in enumerate(zip(overlaps, truth, strict=True)):
        # Where the target is absent nothing can be overlapped, and that is no failure.
        if value <= threshold and not is_empty(region):
            left -= 1
            if left == 0:
                # The failure began with the first of the bad frames, not when patience ran out.
                return frame + 1 - grace
        else:
            left = grace
    return len(overlaps)


def multistart_partial(cut: Sequence[Fragment], length: int) -> tuple[Floats, Floats]:
    """Return one sequence's share of the multistart EAO curve, and how many runs each point has.

    After the end of a failed run its sum is divided by one less than the length (the toolkit's
    own arithmetic).
    """
    total, active = np.zeros(length), np.zeros(length)
    for fragment in cut:
        sums = np.concatenate([[0.0], np.cumsum(fragment.overlaps[1:])])
        frames = len(fragment.overlaps)
        for j in range(1, length):
            if j < frames:
                total[j] += sums[j] / j
            elif not fragment.failed:
                continue
            else:
                # The toolkit's own off-by-one, without which its reports are not met to the last
                # digit.
                total[j] += sums[-1] / (j - 1)
            active[j] += 1
    return np.divide(total, active, out=np.zeros(length), where=active > 0), active


def longterm_thresholds(confidence: Sequence[float] | Floats, resolution: int = 100) -> Floats:
    """Choose thresholds at even ranks of all confidences, with infinity at both ends."""
    ordered = sorted((c for c in confidence if not math.isnan(c)), reverse=True)
    inner = resolution - 2
    if len(ordered) > inner:
        # Even ranks and not even values: confidences of trackers bunch near 0 or 1, and even values
        # would leave most points of the curve empty.
        step = len(ordered) // inner
        ranks = np.round(np.linspace(step, len(ordered) - step, num=inner)).astype(int)
        ordered = [ordered[rank] for rank in ranks]
    return np.array([math.inf, *ordered, -math.inf])


def longterm_curves(
    overlaps: Floats, confidence: Floats, visible: int, thresholds: Floats
) -> tuple[Floats, Floats]:
    """Precision and recall where the tracker is sure enough, one point per threshold.

    Args:
        overlaps: (N,) per frame.
        confidence: (N,) the tracker's own.
        visible: Frames in which there is a target.
        thresholds: (T,) falling.
    """
    precision, recall = np.ones(len(thresholds)), np.zeros(len(thresholds))
    for k, threshold in enumerate(thresholds):
        sure = confidence >= threshold
        if sure.any():
            precision[k] = overlaps[sure].mean()
            # Precision divides by the frames that are reported, recall by those in which there is a
            # target: silence costs recall, a wrong box costs precision.
            recall[k] = overlaps[sure].sum() / visible
    return precision, recall


def pysot_accuracy(regions: Sequence[Region], overlaps: Floats, *, burn_in: int = 10) -> Floats:
    """Overlaps with the frames after each start and all codes taken out as NaN."""
    values = overlaps.copy()
    for start in codes(regions, INITIALISATION):
        values[start : start + burn_in] = np.nan
    return values


def pysot_eao_curve(
    runs: Sequence[tuple[Sequence[Region], Floats]], weight: float, skip: int = 5
) -> Floats:
    """Expected average overlap as pysot's EAOBenchmark forms it.

    Fragments run from a start to ``skip`` frames after the failure, that frame included; all of
    them have the same weight, as tags are not read here.

    Args:
        runs: Regions and overlaps of every run of every sequence; NaN at codes.
        weight: One over the number of repetitions.
        skip: Frames between a failure and the next start.
    """
    longest = max(len(overlaps) for _, overlaps in runs)
    rows: list[Floats] = []
    for regions, overlaps in runs:
        failures = codes(regions, FAILURE)
        if not failures:
            row = np.full(longest, np.nan)
            row[: len(overlaps)] = overlaps
            rows.append(row)
            continue
        # Five frames are skipped after a failure, so that what made the tracker fail is not met
        # again at once (VOT2013).
        starts = [0, *(f + skip for f in failures if f + skip <= len(overlaps))]
        for start, end in zip(starts, [*starts[1:], None], strict=True):
            part = np.nan_to_num(overlaps[start : None if end is None else end + 1], nan=0.0)
            # As above: a failed fragment goes on with zeros, one that met the end of the video with
            # nothing.
            row = np.zeros(longest) if end is not None else np.full(longest, np.nan)
            row[: len(part)] = part
            rows.append(row)
    table = np.stack(rows)
    weights = np.full(len(rows), weight)
    curve = np.ones(longest)
    sums = np.cumsum(table[:, 1:], axis=1)
    for j in range(1, longest):
        known = ~np.isnan(table[:, j])
        # Point 0, the frame of the start, is 1 by definition and in no sum.
        mean = sums[known, j - 1] / j
        curve[j] = np.sum(mean * weights[known]) / weights[known].sum() if known.any() else 0.0
    return curve

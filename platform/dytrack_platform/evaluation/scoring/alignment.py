"""Bring a result to the annotation's length and mend it, the way each toolkit does."""

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.errors import ResultError
from dytrack_platform.evaluation.scoring.metrics import Floats
from dytrack_platform.evaluation.scoring.profiles import Profile

Mask = NDArray[np.bool_]


def align(
    profile: Profile,
    name: str,
    annotation_xywh: Floats,
    result_xywh: NDArray[np.generic],
    notes: list[str],
) -> Floats:
    """Return one box per annotated frame, with the profile's repairs.

    Args:
        profile: The rules.
        name: The sequence, for messages and for OTB's omitted frames.
        annotation_xywh: (N, 4) pixels.
        result_xywh: (M, 4) pixels as the tracker wrote them; not changed.
        notes: Gets a line for everything unusual.

    Returns:
        (N, 4) fresh array.

    Raises:
        ResultError: The toolkit would stop on this result.
    """
    frames = len(annotation_xywh)
    result = np.asarray(result_xywh, dtype=np.float64)
    unknown: Mask = np.any(np.isnan(annotation_xywh), axis=1)
    omitted = profile.omitted_starts.get(name, 0)
    if omitted and len(result) == frames + omitted:
        notes.append(f"the first {omitted} results are dropped: the benchmark omits those frames")
        # OTB omits the first frames of Tiger1, and trackers write either all frames or those from
        # there on.
        result = result[omitted:]
    if len(result) > frames:
        if profile.longer == "refused":
            raise _length_error(profile, name, len(result), frames)
        notes.append(f"{len(result)} results for {frames} frames: the rest is cut")
        result = result[:frames]
    if len(result) < frames and profile.shorter == "refused":
        raise _length_error(profile, name, len(result), frames)
    result = _repaired(profile, name, result, unknown[: len(result)], notes)
    if len(result) < frames:
        # pytracking fills up with boxes of zeros; elsewhere what is missing is unknown, and fails.
        filler = 0.0 if profile.shorter == "zeros" else np.nan
        rest = np.full((frames - len(result), 4), filler)
        notes.append(f"{len(result)} results for {frames} frames: the rest counts as failures")
        result = np.concatenate([result, rest])
    return result


def _length_error(profile: Profile, name: str, results: int, frames: int) -> ResultError:
    return ResultError(
        f"{name}: {results} results for {frames} annotated frames, and the toolkit behind "
        f"{profile.name} stops on that; mend the file or leave it out with --exclude {name}"
    )


def _repaired(
    profile: Profile, name: str, result: Floats, unknown: Mask, notes: list[str]
) -> Floats:
    """Copy the boxes, replacing broken ones as the profile says."""
    result = result.copy()
    w, h = result[:, 2], result[:, 3]
    sized = (w > 0) & (h > 0)
    whole = not np.isnan(result[:, :2]).any()
    if whole and sized.all():
        return result
    nan = np.isnan(result)
    if nan.any():
        notes.append(
            f"{int(nan.any(axis=1).sum())} results have NaN, first in frame "
            f"{int(np.argmax(nan.any(axis=1))) + 1}"
        )
    empty = (w <= 0) | (h <= 0)
    if empty.any():
        notes.append(
            f"{int(empty.sum())} results have no area, first in frame {int(np.argmax(empty)) + 1}"
        )
    if profile.broken_prediction == "kept":
        return result
    if profile.broken_prediction == "previous-if-empty":
        bad = nan.any(axis=1) | (w < 0) | (h < 0)
        if bad.any():
            raise ResultError(
                f"{name}: result {int(np.argmax(bad)) + 1} has NaN or a negative size, and the "
                f"toolkit behind {profile.name} stops on that; mend the file or choose lasot-matlab"
            )
    broken = (empty | nan.all(axis=1)) & ~unknown
    # Frame 1 is given to the tracker; there is no box before it to fall back to.
    broken[:1] = False
    # Each broken frame points at the last whole one before it, however long the gap is.
    source = np.maximum.accumulate(np.where(broken, 0, np.arange(len(result))))
    return result[source]

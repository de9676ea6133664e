"""A few frames of a sequence with boxes drawn in, and the line of exits under them."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from dytrack_platform.datasets.sequence import Pixels, VideoSequence
from dytrack_platform.errors import DataError
from dytrack_platform.evaluation.report.page import colour, part
from dytrack_platform.evaluation.tracking.protocol import SequenceResult

_HEIGHT = 132  # pixels of a thumbnail: twice what is shown, for dense screens it is enough
_TRUTH = (255, 255, 255)


@dataclass(frozen=True, kw_only=True, slots=True)
class Film:
    """Images and time lines of one sequence."""

    name: str
    images: tuple[tuple[int, str, str], ...]
    """Frame number from 1, the path of the frame, and its thumbnail as a data address."""
    lines: Mapping[str, Markup]
    """SVG time line by point."""


def make_film(
    sequence: VideoSequence,
    results: Mapping[str, SequenceResult],
    overlaps: Mapping[str, NDArray[np.float64]],
    *,
    images: int = 8,
) -> Film:
    """Draw evenly spaced frames with the annotation (white) and the first point's box.

    Args:
        sequence: Frames and annotation.
        results: Results on this sequence by point.
        overlaps: (N,) IoU per frame by point, NaN where unknown.
        images: How many frames.
    """
    result = next(iter(results.values()))
    drawn = []
    for frame in dict.fromkeys(np.linspace(0, len(result) - 1, images).astype(int).tolist()):
        try:
            image = sequence.frames.read(frame)
        except DataError:
            continue  # it is among the undecoded frames of the report already
        place = sequence.frames.path(frame)
        drawn.append((frame + 1, place, _thumbnail(image, sequence, result, frame)))
    lines = {point: time_line(r.exit_indices, overlaps[point]) for point, r in results.items()}
    return Film(name=sequence.name, images=tuple(drawn), lines=lines)


def _thumbnail(image: Pixels, sequence: VideoSequence, result: SequenceResult, frame: int) -> str:
    scale = _HEIGHT / image.shape[0]
    size = (max(1, round(image.shape[1] * scale)), _HEIGHT)
    small = np.ascontiguousarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    tint = colour(max(int(result.exit_indices[frame]), 0))
    rgb = tuple(int(tint[k : k + 2], 16) for k in (1, 3, 5))
    for box, ink in ((sequence.boxes_xywh[frame], _TRUTH), (result.boxes_xywh[frame], rgb)):
        if np.isfinite(box).all():
            x, y, w, h = (round(float(value) * scale) for value in box)
            cv2.rectangle(small, (x, y), (x + w, y + h), ink, 1, cv2.LINE_AA)
    written, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 70])
    if not written:
        raise DataError(f"{sequence.name}: frame {frame + 1} cannot be written as JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def time_line(
    exit_indices: NDArray[np.int64], overlaps: NDArray[np.float64], *, width: int = 1000
) -> Markup:
    """Draw the exits as a coloured band and the IoU as a line above it (SVG)."""
    frames = len(exit_indices)
    step = width / max(frames, 1)
    turns = np.flatnonzero(np.diff(exit_indices)) + 1
    bands = [
        (f"{begin * step:.1f}", f"{(end - begin) * step:.1f}", colour(int(exit_indices[begin])))
        for begin, end in zip([0, *turns], [*turns, frames], strict=True)
        if exit_indices[begin] >= 0
    ]
    every = max(1, frames // 400)  # more points than that cannot be seen
    points = " ".join(
        f"{k * step:.1f},{40 * (1 - value):.1f}"
        for k, value in zip(range(0, frames, every), overlaps[::every], strict=True)
        if np.isfinite(value)
    )
    return part("time_line", width, points, bands)

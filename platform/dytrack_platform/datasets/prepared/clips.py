"""Clips: a run of frames of one sequence, planned from its boxes and cut into one row.

The plan needs no image: it is made where the annotations are read, and carried out wherever
there is a free core.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.datasets.io.text import usable_boxes
from dytrack_platform.datasets.prepared.windows import ClipConfig, Window, cut_window
from dytrack_platform.datasets.sequence import Boxes, Fault, Frames, Pixels, VideoSequence
from dytrack_platform.errors import DataError


@dataclass(frozen=True, slots=True)
class Clip:
    """One row of a prepared folder."""

    dataset: str
    sequence: str
    number: int
    """Position among the sequence's clips, from 0."""
    frames: list[int]
    """Positions in the sequence, rising."""
    windows: list[Window]
    visible: list[bool]
    """False where the target is absent; its window lies where it was last seen."""


class FrameCache:
    """Reads frames and remembers the last one: the targets of a still image share it."""

    def __init__(self) -> None:
        self._path = ""
        self._pixels: Pixels | None = None

    def read(self, frames: Frames, index: int) -> Pixels:
        """Decode a frame, or give it again.

        Raises:
            DataError: The frame is missing or does not decode.
        """
        path = frames.path(index)
        if path != self._path or self._pixels is None:
            self._pixels = None
            self._pixels = frames.read(index)
            self._path = path
        return self._pixels


def plan_clips(sequence: VideoSequence, config: ClipConfig) -> list[NDArray[np.int64]]:
    """Choose the frames of each clip of a sequence.

    The sequence is cut into equal parts of at most ``config.span`` frames, and the frames of a
    clip are spread evenly over a part. A part in which the target is never visible is left out.

    Returns:
        For each clip the positions of its frames, rising.
    """
    length = len(sequence)
    parts = -(-length // config.span)
    clips = []
    for part in range(parts):
        # Integer arithmetic spreads the remainder: parts differ by one frame at most, and no frame
        # is left over.
        start, end = part * length // parts, (part + 1) * length // parts
        count = min(config.frames, end - start)
        frames = start + np.arange(count) * (end - start) // count
        if sequence.visible[frames].any():
            clips.append(frames)
    return clips


def cut_clips(
    sequence: VideoSequence, config: ClipConfig, images: FrameCache, faults: list[Fault]
) -> Iterator[Clip]:
    """Read a sequence's frames and cut its clips.

    Args:
        sequence: With its frames.
        config: What to cut.
        images: Reads the frames; shared by sequences that are read one after the other.
        faults: Filled with the frames that could not be used.

    Yields:
        Clips with at least one visible frame.
    """
    boxes = _last_seen(sequence)
    for number, frames in enumerate(plan_clips(sequence, config)):
        clip = Clip(sequence.dataset, sequence.name, number, [], [], [])
        for frame in frames.tolist():
            try:
                window = cut_window(images.read(sequence.frames, frame), boxes[frame], config)
            except DataError as error:
                faults.append(
                    Fault(
                        dataset=sequence.dataset,
                        sequence=sequence.name,
                        frame=frame,
                        reason=str(error),
                    )
                )
                continue
            clip.frames.append(frame)
            clip.windows.append(window)
            clip.visible.append(bool(sequence.visible[frame]))
        if any(clip.visible):
            yield clip


def _last_seen(sequence: VideoSequence) -> Boxes:
    """Return (N, 4) boxes in which a frame without a usable box has the last usable one.

    Frames before the first usable box get that one.
    """
    usable = sequence.visible & usable_boxes(sequence.boxes_xywh)
    seen = np.maximum.accumulate(np.where(usable, np.arange(len(usable)), -1))
    seen[seen < 0] = int(np.argmax(usable))
    return sequence.boxes_xywh[seen]

"""What is in a source or a prepared folder, in numbers."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dytrack_platform.datasets.io.text import usable_boxes
from dytrack_platform.datasets.prepared.manifest import INDEX, read_manifest
from dytrack_platform.datasets.prepared.shards import ShardReader, StoredClip
from dytrack_platform.datasets.sequence import VideoSequence
from dytrack_platform.errors import DataError
from dytrack_platform.storage.tree import Tree

SIZE_EDGES = (0.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, np.inf)
"""Bins of a target's size, the square root of its area, in pixels of the frame."""
MOTION_EDGES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, np.inf)
"""Bins of the motion of a target's centre from frame to frame, in parts of its size."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts over sequences; histograms over frames on which the target can be seen."""

    sequences: int
    frames: int
    visible: int
    lengths: tuple[int, int, int]
    """Shortest, median and longest sequence."""
    sizes: tuple[int, ...]
    """Frames in each bin of :data:`SIZE_EDGES`."""
    motions: tuple[int, ...]
    """Steps in each bin of :data:`MOTION_EDGES`; of a clip's frames, which may lie apart, the mean
    step between them."""
    attributes: dict[str, int]
    """Sequences that have each attribute."""
    classes: dict[str, int]
    """Sequences of each class of object."""


def of_sequences(sequences: Iterable[VideoSequence]) -> Statistics:
    """Count what a source holds; images are not looked at.

    Raises:
        DataError: There is no sequence.
    """
    lengths, visible = [], 0
    sizes = np.zeros(len(SIZE_EDGES) - 1, np.int64)
    motions = np.zeros(len(MOTION_EDGES) - 1, np.int64)
    attributes: Counter[str] = Counter()
    classes: Counter[str] = Counter()
    for sequence in sequences:
        seen = sequence.visible & usable_boxes(sequence.boxes_xywh)
        boxes = sequence.boxes_xywh
        lengths.append(len(sequence))
        visible += int(seen.sum())
        root = np.sqrt(boxes[seen, 2] * boxes[seen, 3])
        sizes += np.histogram(root, SIZE_EDGES)[0]
        motions += np.histogram(_motion(boxes, seen), MOTION_EDGES)[0]
        attributes.update(sequence.attributes)
        classes.update([sequence.object_class] if sequence.object_class else [])
    if not lengths:
        raise DataError("there is no sequence to count")
    return Statistics(
        sequences=len(lengths),
        frames=sum(lengths),
        visible=visible,
        lengths=(min(lengths), int(np.median(lengths)), max(lengths)),
        sizes=tuple(sizes.tolist()),
        motions=tuple(motions.tolist()),
        attributes=dict(attributes.most_common()),
        classes=dict(classes.most_common()),
    )


def _motion(boxes: NDArray[np.float64], seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    both = seen[1:] & seen[:-1]
    centres = boxes[:, :2] + 0.5 * boxes[:, 2:]
    steps = np.linalg.norm(np.diff(centres, axis=0)[both], axis=1)
    return np.asarray(steps / np.sqrt(boxes[:-1, 2] * boxes[:-1, 3])[both], np.float64)


def _motion_of_clip(clip: StoredClip) -> NDArray[np.float64]:
    if clip.origins_xy is None:
        return np.empty(0)
    boxes = clip.boxes_xywh / clip.scales[:, None]
    boxes[:, :2] += clip.origins_xy
    both = clip.visible[1:] & clip.visible[:-1]
    return _motion(boxes, clip.visible) / np.diff(clip.frames)[both]


def of_partition(partition: Tree) -> Statistics:
    """Count what a prepared partition holds; windows are not decoded.

    Raises:
        DataError: The partition is unfinished, damaged or empty.
    """
    manifest = read_manifest(partition)
    if not manifest["complete"]:
        raise DataError(
            f"{partition.root}: its preparation was not finished; run dytrack prepare again"
        )
    with partition.open(INDEX) as file:
        rows = pq.read_table(file).to_pylist()
    if not rows:
        raise DataError(f"{partition.root}: holds no clip")
    reader = ShardReader(partition)
    sizes = np.zeros(len(SIZE_EDGES) - 1, np.int64)
    motions = np.zeros(len(MOTION_EDGES) - 1, np.int64)
    frames: Counter[str] = Counter()
    for row in rows:
        clip = reader.read(row["file"], row["row"])
        frames[row["sequence"]] += row["frames"]
        boxes = clip.boxes_xywh[clip.visible] / clip.scales[clip.visible, None]
        sizes += np.histogram(np.sqrt(boxes[:, 2] * boxes[:, 3]), SIZE_EDGES)[0]
        motions += np.histogram(_motion_of_clip(clip), MOTION_EDGES)[0]
    lengths = list(frames.values())
    return Statistics(
        sequences=len(frames),
        frames=sum(lengths),
        visible=sum(row["visible"] for row in rows),
        lengths=(min(lengths), int(np.median(lengths)), max(lengths)),
        sizes=tuple(sizes.tolist()),
        motions=tuple(motions.tolist()),
        attributes={},
        classes={},
    )

"""Shards: Parquet files of clips, each complete in itself.

A shard's footer says what it was made from (``plan``), what is in it (``rows``) and what was
passed over (``rejects``). So one renamed file is all that a killed preparation leaves, and the
next one can tell finished shards without opening an image. One row is one row group: training
reads any row without its neighbours.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dytrack_platform.datasets.prepared.clips import Clip, FrameCache, cut_clips
from dytrack_platform.datasets.prepared.windows import ClipConfig
from dytrack_platform.datasets.sequence import Boxes, Fault, VideoSequence
from dytrack_platform.errors import DataError
from dytrack_platform.storage.patience import asking
from dytrack_platform.storage.tree import Tree

SCHEMA_VERSION = 2
"""2 added ``origins``; shards of version 1 are read without them."""
_FOOTER = b"dytrack"

SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("sequence", pa.string()),
        ("clip", pa.int32()),
        ("frames", pa.list_(pa.int32())),
        ("images", pa.list_(pa.binary())),
        ("boxes", pa.list_(pa.list_(pa.float32(), 4))),
        ("visible", pa.list_(pa.bool_())),
        ("scales", pa.list_(pa.float32())),
        ("origins", pa.list_(pa.list_(pa.float32(), 2))),
    ]
)
"""Columns of a shard. ``boxes`` are x, y, w, h in pixels of the window; ``scales`` are pixels of
the window for one of the frame; ``origins`` are x, y of the window's corner in the frame."""


@dataclass(frozen=True, slots=True)
class ShardJob:
    """Everything that writes one shard, on whatever machine."""

    out: str
    """Folder or URL of the partition."""
    file: str
    sequences: tuple[VideoSequence, ...]
    config: ClipConfig
    plan: str
    """Digest of configuration, frames and boxes; a shard with the same digest is this one."""


@dataclass(frozen=True, slots=True)
class ShardRow:
    """What the index knows of a row without reading it."""

    sequence: str
    clip: int
    frames: int
    visible: int
    """Frames on which the target can be seen."""


@dataclass(frozen=True, slots=True)
class ShardSummary:
    """A shard's footer."""

    plan: str
    rows: tuple[ShardRow, ...]
    rejects: tuple[Fault, ...]

    def to_json(self) -> str:
        """Return the text that the footer holds."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "ShardSummary":
        """Read what :meth:`to_json` gave."""
        values: dict[str, Any] = json.loads(text)
        return cls(
            values["plan"],
            tuple(ShardRow(**row) for row in values["rows"]),
            tuple(Fault(**fault) for fault in values["rejects"]),
        )


def plan_digest(sequences: Sequence[VideoSequence], config: ClipConfig) -> str:
    """Return a digest of what a shard is made from; images are not looked at."""
    digest = hashlib.sha256(json.dumps([SCHEMA_VERSION, config.to_dict()]).encode())
    for sequence in sequences:
        digest.update(f"{sequence.dataset}/{sequence.name}/{len(sequence.frames)}".encode())
        digest.update(np.ascontiguousarray(sequence.boxes_xywh, np.float64).tobytes())
        digest.update(sequence.visible.tobytes())
    return digest.hexdigest()


def write_shard(job: ShardJob) -> ShardSummary:
    """Cut a shard's clips and write it: the file is there complete or not at all.

    The same job gives the same bytes on every machine with the same libraries.

    Raises:
        StorageError: The partition cannot be written.
    """
    cv2.setNumThreads(1)  # every core already has a shard of its own
    images, faults, tables, rows = FrameCache(), list[Fault](), list[pa.Table](), list[ShardRow]()
    for sequence in job.sequences:
        for clip in cut_clips(sequence, job.config, images, faults):
            tables.append(_row(clip))
            visible = sum(clip.visible)
            rows.append(ShardRow(clip.sequence, clip.number, len(clip.frames), visible))
    summary = ShardSummary(job.plan, tuple(rows), tuple(faults))
    schema = SCHEMA.with_metadata({_FOOTER: summary.to_json().encode()})
    buffer = pa.BufferOutputStream()
    with pq.ParquetWriter(
        buffer, schema, compression="none", use_dictionary=False, write_statistics=False
    ) as writer:
        for table in tables:
            writer.write_table(table)
    Tree(job.out).write_bytes(job.file, memoryview(buffer.getvalue()))
    return summary


def _row(clip: Clip) -> pa.Table:
    columns = {
        "dataset": clip.dataset,
        "sequence": clip.sequence,
        "clip": clip.number,
        "frames": clip.frames,
        "images": [window.jpeg for window in clip.windows],
        "boxes": [window.box_xywh for window in clip.windows],
        "visible": clip.visible,
        "scales": [window.scale for window in clip.windows],
        "origins": [window.origin_xy for window in clip.windows],
    }
    return pa.Table.from_pylist([columns], schema=SCHEMA)


def read_summary(tree: Tree, file: str) -> ShardSummary:
    """Read a shard's footer.

    Raises:
        DataError: The file is missing or is not a shard.
    """
    with _opened(tree, file) as shard:
        return _summary(shard, tree.path(file))


def _summary(shard: pq.ParquetFile, path: str) -> ShardSummary:
    footer = (shard.schema_arrow.metadata or {}).get(_FOOTER)
    if footer is None:
        raise DataError(f"{path}: is Parquet, but not a shard of clips")
    return ShardSummary.from_json(footer)


@dataclass(frozen=True, slots=True)
class StoredClip:
    """A row as training reads it: images still encoded."""

    dataset: str
    sequence: str
    frames: NDArray[np.int64]
    """(K,) positions in the sequence."""
    jpegs: list[bytes]
    boxes_xywh: Boxes
    """(K, 4) pixels of each window."""
    visible: NDArray[np.bool_]
    """(K,)"""
    scales: NDArray[np.float64]
    """(K,) pixels of the window for one of the frame."""
    origins_xy: NDArray[np.float64] | None = None
    """(K, 2) pixels of the frame; None where an older program wrote the clip."""

    def name(self, index: int) -> str:
        """Name one of its frames, for messages."""
        return f"{self.dataset} {self.sequence} frame {self.frames[index]}"


class ShardReader:
    """Reads single rows of shards; keeps a few files open. Not for several threads at once."""

    def __init__(self, tree: Tree, open_files: int = 32) -> None:
        self._tree = tree
        self._file = lru_cache(maxsize=open_files)(lambda file: _opened(tree, file))

    def read(self, file: str, row: int) -> StoredClip:
        """Read a row.

        Raises:
            DataError: The file is missing, damaged, or has no such row.
        """
        # A file that is open asks its store again for every row.
        local = self._tree.local is not None
        try:
            with nullcontext() if local else asking(self._tree.path(file)):
                values = self._file(file).read_row_group(row).to_pylist()[0]
        except (OSError, pa.ArrowException, IndexError) as error:
            raise DataError(
                f"{self._tree.path(file)}: row {row} cannot be read ({error})"
            ) from error
        origins = values.get("origins")
        return StoredClip(
            dataset=values["dataset"],
            sequence=values["sequence"],
            frames=np.array(values["frames"], np.int64),
            jpegs=values["images"],
            boxes_xywh=np.array(values["boxes"], np.float64).reshape(-1, 4),
            visible=np.array(values["visible"], bool),
            scales=np.array(values["scales"], np.float64),
            origins_xy=None if origins is None else np.array(origins, np.float64),
        )


def _opened(tree: Tree, file: str) -> pq.ParquetFile:
    path = tree.path(file)
    try:
        if tree.local is not None:
            return pq.ParquetFile(path, memory_map=True)
        return pq.ParquetFile(pa.PythonFile(tree.open(file), mode="r"))
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: is missing or is not Parquet ({error})") from error

"""Look at everything a source or a prepared folder holds, and list every fault."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.parquet as pq

from dytrack_platform.datasets import readers
from dytrack_platform.datasets.io.frames import decode
from dytrack_platform.datasets.io.text import usable_boxes
from dytrack_platform.datasets.prepared.manifest import INDEX, read_manifest
from dytrack_platform.datasets.prepared.shards import (
    ShardReader,
    ShardSummary,
    StoredClip,
    read_summary,
)
from dytrack_platform.datasets.sequence import Fault, VideoSequence
from dytrack_platform.errors import DataError
from dytrack_platform.storage.tree import Tree


def check_source(
    dataset: str, root: str, split: str | None, *, frames: bool = True, threads: int = 4
) -> Iterator[tuple[str, list[Fault]]]:
    """Read a source's annotations, and decode every frame.

    Args:
        dataset: Name of a reader.
        root: What the owner published.
        split: The dataset's split.
        frames: Decode the frames too; without them only annotations and lists are checked.
        threads: Sequences decoded at the same time.

    Yields:
        The name of a sequence and its faults, in the owner's order; faults of sequences that
        cannot be read at all come as soon as they are met, under their own names.

    Raises:
        DataError: The source cannot be used at all.
    """
    met: list[Fault] = []
    sequences = list(readers.read(dataset, root, split, met))
    later = {fault for sequence in sequences for fault in sequence.faults}
    for fault in met:
        if fault not in later:
            yield fault.sequence, [fault]
    with ThreadPoolExecutor(threads) as pool:
        decoded = pool.map(_undecodable if frames else _nothing, sequences)
        for sequence, faults in zip(sequences, decoded, strict=True):
            yield sequence.name, [*sequence.faults, *faults]


def _undecodable(sequence: VideoSequence) -> list[Fault]:
    faults = []
    for index, frame in enumerate(sequence.frames.iterate()):
        if frame is None and index < len(sequence):
            reason = f"{sequence.frames.path(index)}: does not decode"
            try:
                sequence.frames.read(index)
            except DataError as error:
                reason = str(error)
            faults.append(
                Fault(dataset=sequence.dataset, sequence=sequence.name, frame=index, reason=reason)
            )
    return faults


def _nothing(sequence: VideoSequence) -> list[Fault]:
    return []


def check_partition(partition: Tree) -> Iterator[tuple[str, list[Fault]]]:
    """Read a prepared partition: manifest, index, every shard and every window.

    Yields:
        The name of a shard, or of another file, and its faults.

    Raises:
        DataError: The manifest is missing, damaged or of a newer program.
    """
    manifest = read_manifest(partition)

    def fault(sequence: str, reason: str, frame: int | None = None) -> Fault:
        return Fault(dataset=manifest["dataset"], sequence=sequence, frame=frame, reason=reason)

    if not manifest["complete"]:
        reason = "the preparation was not finished; run dytrack prepare again"
        yield "manifest.json", [fault("", reason)]
        return
    try:
        with partition.open(INDEX) as file:
            indexed = pq.read_table(file, columns=["file", "row"]).to_pylist()
    except (DataError, OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        yield INDEX, [fault("", f"{partition.path(INDEX)}: cannot be read ({error})")]
        indexed = []
    if indexed and len(indexed) != manifest["clips"]:
        reason = f"the index has {len(indexed)} rows, the manifest {manifest['clips']} clips"
        yield INDEX, [fault("", reason)]
    reader = ShardReader(partition)
    for file_name in manifest["shards"]:
        try:
            summary = read_summary(partition, file_name)
        except DataError as error:
            yield file_name, [fault("", str(error))]
            continue
        yield file_name, list(_shard_faults(reader, file_name, summary, manifest["dataset"]))


def _shard_faults(
    reader: ShardReader, file: str, summary: ShardSummary, dataset: str
) -> Iterator[Fault]:
    for number, row in enumerate(summary.rows):
        try:
            clip = reader.read(file, number)
        except DataError as error:
            yield Fault(dataset=dataset, sequence=row.sequence, frame=None, reason=str(error))
            continue
        yield from _clip_faults(clip, file)


def _clip_faults(clip: StoredClip, file: str) -> Iterator[Fault]:
    usable = usable_boxes(clip.boxes_xywh) | ~clip.visible
    for index in np.flatnonzero(~usable).tolist():
        yield Fault(
            dataset=clip.dataset,
            sequence=clip.sequence,
            frame=int(clip.frames[index]),
            reason=f"{file}: the stored box has no area or is not finite",
        )
    for index, jpeg in enumerate(clip.jpegs):
        try:
            decode(jpeg, clip.name(index))
        except DataError as error:
            yield Fault(
                dataset=clip.dataset,
                sequence=clip.sequence,
                frame=int(clip.frames[index]),
                reason=f"{file}: {error}",
            )

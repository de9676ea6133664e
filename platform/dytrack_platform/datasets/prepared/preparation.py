"""Prepared folders: planned in one place, written by many, finished in one place.

::

    OUT/dataset=got10k/split=train/part-00000.parquet ...
                                   index.parquet    every row: file, row, sequence, frames, visible
                                   rejects.jsonl    what was passed over, and why
                                   manifest.json    configuration and counts; written last

Which sequence lies in which shard depends on its name and the number of listed sequences alone,
so damage to one sequence leaves the shards of the others as they are.
"""

import hashlib
import io
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dytrack_platform.datasets import readers
from dytrack_platform.datasets.prepared.clips import plan_clips
from dytrack_platform.datasets.prepared.manifest import (
    INDEX,
    MANIFEST,
    REJECTS,
    new_manifest,
    partition_folder,
    refuse_other,
    to_json,
)
from dytrack_platform.datasets.prepared.shards import (
    ShardJob,
    ShardSummary,
    plan_digest,
    read_summary,
)
from dytrack_platform.datasets.prepared.windows import ClipConfig
from dytrack_platform.datasets.sequence import Fault, VideoSequence
from dytrack_platform.errors import DataError
from dytrack_platform.storage.tree import Tree

_FRAMES_PER_SHARD = 1024
_FEWEST_SHARDS = 32
"""Where sequences are few, shards are small, so that every core gets some."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """What has to be done, and what was already there."""

    dataset: str
    split: str
    source: str
    partition: Tree
    config: ClipConfig
    listed: int
    """Sequences that the source lists, usable or not."""
    jobs: tuple[ShardJob, ...]
    """One for each shard, finished ones too."""
    finished: dict[str, ShardSummary]
    """Shards that an earlier preparation wrote from the same plan."""
    small: int
    """Sequences left out because their target is never large enough."""
    faults: tuple[Fault, ...]
    """What the reader passed over."""

    @property
    def missing(self) -> tuple[ShardJob, ...]:
        """The shards still to be written, the longest first, so that none is left for the end."""
        jobs = [job for job in self.jobs if job.file not in self.finished]
        return tuple(sorted(jobs, key=lambda job: -sum(map(len, job.sequences))))


@dataclass(frozen=True, slots=True)
class Prepared:
    """Counts of a finished preparation."""

    folder: str
    sequences: int
    clips: int
    frames: int
    rejects: int


def plan_preparation(
    dataset: str,
    root: str,
    split: str | None,
    out: str,
    config: ClipConfig,
    *,
    fresh: bool = False,
    write: bool = True,
) -> Preparation:
    """Read the annotations, assign sequences to shards, and look what is already there.

    Args:
        dataset: Name of a reader.
        root: What the owner published.
        split: The dataset's split; None for its default.
        out: Root of the prepared data.
        config: What to cut.
        fresh: Write every shard anew, whatever is there.
        write: Mark the folder as one that is being prepared; False leaves it as it is.

    Raises:
        DataError: The source cannot be read, or the folder holds clips of another configuration
            or of a newer program.
        StorageError: The folder cannot be written.
    """
    partition = Tree(out) / partition_folder(dataset, split or "all")
    faults: list[Fault] = []
    found = [
        sequence
        for sequence in readers.read(dataset, root, split, faults)
        if _ever_visible(sequence, faults)
    ]
    unusable = {fault.sequence for fault in faults if fault.frame is None}
    listed = len({sequence.name for sequence in found} | unusable)
    sequences = [s for s in _without_small(found, config.smallest_side) if s.visible.any()]
    # The number of shards is part of the configuration, so that a second run over damaged or mended
    # data assigns sequences as the first one did.
    chosen = replace(config, sequences_per_shard=_sequences_per_shard(sequences, config, listed))
    manifest = new_manifest(dataset, split or "all", root, chosen)
    if not fresh:
        refuse_other(partition, manifest)
    jobs = _jobs(partition.root, sequences, chosen, listed)
    finished = {} if fresh else finished_shards(partition, jobs)
    # A whole partition stays one, should this end right here.
    if write and len(finished) < len(jobs):
        partition.write_bytes(MANIFEST, to_json(manifest))
    return Preparation(
        dataset=dataset,
        split=split or "all",
        source=root,
        partition=partition,
        config=chosen,
        listed=listed,
        jobs=jobs,
        finished=finished,
        small=len(found) - len(sequences),
        faults=tuple(faults),
    )


def _ever_visible(sequence: VideoSequence, faults: list[Fault]) -> bool:
    if sequence.visible.any():
        return True
    reason = "the target is never visible"
    faults.append(
        Fault(dataset=sequence.dataset, sequence=sequence.name, frame=None, reason=reason)
    )
    return False


def _without_small(sequences: list[VideoSequence], smallest: float) -> Iterator[VideoSequence]:
    """Count targets with a side shorter than ``smallest`` pixels as not visible."""
    if smallest <= 0:
        yield from sequences
        return
    for sequence in sequences:
        with np.errstate(invalid="ignore"):  # a side of NaN is not large
            large = sequence.boxes_xywh[:, 2:].min(axis=1) >= smallest
        whole = bool(large.all())
        yield sequence if whole else replace(sequence, visible=sequence.visible & large)


def _sequences_per_shard(sequences: list[VideoSequence], config: ClipConfig, listed: int) -> int:
    """Choose a power of two by the median sequence, which damage hardly moves."""
    if config.sequences_per_shard:
        return config.sequences_per_shard
    if not sequences:
        return 1
    frames = sorted(sum(map(len, plan_clips(sequence, config))) for sequence in sequences)
    median = max(1, frames[len(frames) // 2])
    # A power of two: a few sequences more or less must not shift every sequence to another shard.
    by_size = 1 << max(0, round(math.log2(_FRAMES_PER_SHARD / median)))
    return max(1, min(by_size, listed // _FEWEST_SHARDS))


def _jobs(
    out: str, sequences: list[VideoSequence], config: ClipConfig, listed: int
) -> tuple[ShardJob, ...]:
    count = max(1, -(-listed // config.sequences_per_shard))
    shards: list[list[VideoSequence]] = [[] for _ in range(count)]
    for sequence in sequences:
        # Targets of one image (IMAGE#1, IMAGE#2) stay together: it is decoded once.
        key = sequence.name.partition("#")[0]
        digest = hashlib.sha256(key.encode()).digest()
        # By the hash of the name: a sequence that is added or lost changes its own shard and no
        # other.
        shards[int.from_bytes(digest[:8], "big") % count].append(sequence)
    return tuple(
        ShardJob(
            out=out,
            file=f"part-{number:05d}.parquet",
            sequences=tuple(members),
            config=config,
            plan=plan_digest(members, config),
        )
        for number, members in enumerate(shards)
        if members
    )


def finished_shards(partition: Tree, jobs: Iterable[ShardJob]) -> dict[str, ShardSummary]:
    """Return the summaries, by file, of those jobs whose shard is already there."""
    there = set(partition.names()) if partition.is_folder() else set[str]()
    found = {}
    for job in jobs:
        if job.file in there:
            try:
                summary = read_summary(partition, job.file)
            except DataError:
                continue  # not a shard; it is written anew
            if summary.plan == job.plan:
                found[job.file] = summary
    return found


def finish(preparation: Preparation, written: dict[str, ShardSummary]) -> Prepared:
    """Write index, rejects and manifest, and remove what earlier preparations left over.

    Args:
        preparation: The plan.
        written: Summary of every shard that was missing, by file name.

    Raises:
        StorageError: The folder cannot be written.
    """
    partition = preparation.partition
    summaries = {**preparation.finished, **written}
    ordered = [(job.file, summaries[job.file]) for job in preparation.jobs]
    rejects = [*preparation.faults, *(f for _, summary in ordered for f in summary.rejects)]
    rows = [
        {"file": file, "row": number, **asdict(row)}
        for file, summary in ordered
        for number, row in enumerate(summary.rows)
    ]
    # Index, rejects, manifest: what says "complete" is written last.
    partition.write_bytes(INDEX, _index(rows))
    partition.write_bytes(
        REJECTS, "".join(json.dumps(asdict(fault)) + "\n" for fault in rejects).encode()
    )
    done = Prepared(
        folder=partition.root,
        sequences=len({row["sequence"] for row in rows}),
        clips=len(rows),
        frames=sum(row["frames"] for row in rows),
        rejects=len(rejects),
    )
    manifest = new_manifest(
        preparation.dataset, preparation.split, preparation.source, preparation.config
    )
    manifest |= {
        "complete": True,
        "sequences_listed": preparation.listed,
        "sequences": done.sequences,
        "sequences_too_small": preparation.small,
        "clips": done.clips,
        "frames": done.frames,
        "rejects": done.rejects,
        "shards": [file for file, _ in ordered],
    }
    partition.write_bytes(MANIFEST, to_json(manifest))
    for name in partition.names():
        # After the manifest: a crash before this line leaves files that nobody reads.
        if name.startswith("part-") and name not in summaries:
            partition.remove(name)
    partition.remove_leftovers()
    return done


def _index(rows: list[dict[str, Any]]) -> bytes:
    schema = pa.schema(
        [
            ("file", pa.string()),
            ("row", pa.int32()),
            ("sequence", pa.string()),
            ("clip", pa.int32()),
            ("frames", pa.int32()),
            ("visible", pa.int32()),
        ]
    )
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer)
    return buffer.getvalue()

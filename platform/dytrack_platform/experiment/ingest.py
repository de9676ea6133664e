"""Prepare a dataset over Ray Data: annotations are read here, pictures on the workers.

A row of the pipeline is a shard to write, so pictures never travel through the object store, and
a worker that dies costs one shard.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from dytrack_platform.datasets.preparation import Prepared, finish, plan_preparation
from dytrack_platform.datasets.shards import ShardJob, ShardSummary, write_shard
from dytrack_platform.datasets.windows import ClipConfig
from dytrack_platform.errors import DyTrackError, FailureError, StorageError
from dytrack_platform.experiment.cluster import session

_CHATTY = ("ray.data._internal.execution.streaming_executor", "ray.data._internal.progress")
"""Loggers of Ray Data that announce every pipeline."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a preparation is."""

    shards: int
    """Shards finished, those of an earlier preparation included."""
    all_shards: int
    sequences: int
    """Sequences in finished shards."""
    all_sequences: int
    frames: int
    """Frames cut by this preparation."""
    frames_per_second: float
    rejects: int


def prepare(
    dataset: str,
    root: str,
    split: str | None,
    out: str,
    config: ClipConfig | None = None,
    *,
    fresh: bool = False,
    report: Callable[[Progress], None] | None = None,
) -> Prepared:
    """Turn a published dataset into Parquet clips.

    Finished shards of an earlier preparation are kept; killing this one loses at most the
    shards that were being written. The bytes do not depend on the number of workers.

    Args:
        dataset: Name of a reader: got10k, lasot, video, ...
        root: Folder or URL that the owner published.
        split: The dataset's split.
        out: Folder or URL of the prepared data, reached from every node.
        config: What to cut.
        fresh: Write every shard anew.
        report: Called after each shard.

    Raises:
        DataError: The source cannot be used, or ``out`` holds clips of another configuration.
        StorageError: ``out`` cannot be written.
        ClusterError: Ray does not start.
        FailureError: Workers kept dying.
    """
    preparation = plan_preparation(dataset, root, split, out, config or ClipConfig(), fresh=fresh)
    written: dict[str, ShardSummary] = {}
    members = {job.file: len(job.sequences) for job in preparation.jobs}
    start = time.monotonic()  # set again when Ray is up: its start is not the frames' pace

    def tell() -> None:
        done = [*preparation.finished, *written]
        frames = sum(row.frames for summary in written.values() for row in summary.rows)
        rejected = sum(len(s.rejects) for s in [*preparation.finished.values(), *written.values()])
        if report:
            report(
                Progress(
                    shards=len(done),
                    all_shards=len(members),
                    sequences=sum(members[file] for file in done),
                    all_sequences=sum(members.values()),
                    frames=frames,
                    frames_per_second=frames / max(time.monotonic() - start, 1e-9),
                    rejects=len(preparation.faults) + rejected,
                )
            )

    tell()
    if preparation.missing:
        with session():
            import ray
            from ray.exceptions import ObjectLostError, OutOfMemoryError, WorkerCrashedError

            start = time.monotonic()
            for name in _CHATTY:
                logging.getLogger(name).setLevel(logging.ERROR)
            jobs = [ray.put(job) for job in preparation.missing]
            numbers = ray.data.range(len(jobs), override_num_blocks=len(jobs))
            try:
                for row in numbers.map(partial(_write, jobs)).iter_rows():
                    if row["failure"]:
                        raise StorageError(row["failure"])
                    written[row["file"]] = ShardSummary.from_json(row["summary"])
                    tell()
            except (WorkerCrashedError, OutOfMemoryError, ObjectLostError) as error:
                raise FailureError(
                    f"{preparation.partition.root}: a worker died again and again "
                    f"({str(error)[:200]}); what is finished is kept, run the same command again"
                ) from error
    if len(written) < len(preparation.missing):
        raise FailureError(
            f"{preparation.partition.root}: {len(preparation.missing) - len(written)} shards were "
            "not written, though no worker reported why; run the same command again"
        )
    return finish(preparation, written)


def _write(jobs: list[Any], row: dict[str, Any]) -> dict[str, Any]:
    """Write a shard on a worker; a named error travels back as its sentence."""
    import ray

    job: ShardJob = ray.get(jobs[row["id"]])
    try:
        return {"file": job.file, "summary": write_shard(job).to_json(), "failure": ""}
    except DyTrackError as error:
        return {"file": job.file, "summary": "", "failure": str(error)}

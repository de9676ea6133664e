"""Prepare a dataset over Ray Data: annotations are read here, images on the workers.

A row of the pipeline is a shard to write, so images never travel through the object store, and
a worker that dies costs one shard.
"""

import json
import logging
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dytrack_platform.datasets.prepared.manifest import REJECTS
from dytrack_platform.datasets.prepared.preparation import (
    Preparation,
    Prepared,
    finish,
    finished_shards,
    plan_preparation,
)
from dytrack_platform.datasets.prepared.shards import ShardJob, ShardSummary, write_shard
from dytrack_platform.datasets.prepared.windows import ClipConfig
from dytrack_platform.errors import DyTrackError, FailureError, StorageError
from dytrack_platform.experiment.cluster.session import ray_session
from dytrack_platform.storage.tree import Tree

if TYPE_CHECKING:
    import ray.data

_LOG = logging.getLogger(__name__)
_FRUITLESS = 3
"""Pipelines in a row that end by a worker's death without one more shard before it is an error."""
_QUEUED = 4
"""Shards that wait at a worker; small ones are written faster than the driver notices."""
_END_S = 10.0
_CHATTY = {
    "ray.data._internal.progress": logging.ERROR,
    "ray.data._internal.execution.streaming_executor": logging.CRITICAL,
    "ray.data._internal.execution.streaming_executor_state": logging.CRITICAL,
}
"""Loggers of Ray Data that announce every pipeline and show a traceback of each dead worker."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a preparation is."""

    shards: int
    """Shards finished, those of an earlier preparation included."""
    sequences: int
    """Sequences in finished shards."""
    all_sequences: int
    frames: int
    """Frames cut by this preparation."""
    frames_per_second: float
    rejects: int
    seconds_left: float | None
    """At the pace of the sequences so far; None where there is no pace yet."""


def first_reject(folder: str) -> str:
    """Return why the first thing was rejected, behind a semicolon; empty where nothing was."""
    tree = Tree(folder)
    if not tree.is_file(REJECTS) or not (rows := tree.read_text(REJECTS).splitlines()):
        return ""
    first = json.loads(rows[0])
    return f"; {first['sequence']}: {first['reason']}"


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
        seconds = max(time.monotonic() - start, 1e-9)
        new = sum(members[file] for file in written)
        left = sum(members.values()) - sum(members[file] for file in done)
        frames = sum(row.frames for summary in written.values() for row in summary.rows)
        rejected = sum(len(s.rejects) for s in [*preparation.finished.values(), *written.values()])
        if report:
            report(
                Progress(
                    shards=len(done),
                    sequences=sum(members[file] for file in done),
                    all_sequences=sum(members.values()),
                    frames=frames,
                    frames_per_second=frames / seconds,
                    rejects=len(preparation.faults) + rejected,
                    seconds_left=seconds * left / new if new else None,
                )
            )

    tell()
    if preparation.missing:
        with ray_session():
            start = time.monotonic()
            try:
                _write_all(preparation, written, tell)
            finally:
                _end_pipelines()
    return finish(preparation, written)


def _write_all(
    preparation: Preparation, written: dict[str, ShardSummary], tell: Callable[[], None]
) -> None:
    """Run pipelines until every shard is written; a worker that dies ends one, not the work.

    Ray could restart a dead worker by itself, for ever: images that crash a decoder would be
    tried without end. Starting over with what is left is as safe, since a shard is whole or not
    there, and can be bounded.
    """
    import ray
    from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError, WorkerCrashedError

    for name, level in _CHATTY.items():
        logging.getLogger(name).setLevel(level)
    jobs = {job.file: ray.put(job) for job in preparation.missing}
    # One worker for each CPU: decoding and encoding keep it busy, reading is a small part.
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]
    left, fruitless = list(jobs), 0
    while left:
        before = len(written)
        workers = (
            cpus if fruitless == 0 else 1
        )  # one by one, to spare the shards beside the culprit
        try:
            for row in _pipeline([jobs[file] for file in left], workers).iter_rows():
                if row["failure"]:
                    raise StorageError(row["failure"])
                written[row["file"]] = ShardSummary.from_json(row["summary"])
                tell()
        except (RayActorError, WorkerCrashedError, OutOfMemoryError, ObjectLostError) as error:
            _LOG.warning("a worker died; starting over with the shards that are left")
            reason = " ".join(str(error).split())[:200]
            # A worker's last shards may be whole on disk although their rows never came back.
            jobs_left = [job for job in preparation.missing if job.file not in written]
            written |= finished_shards(preparation.partition, jobs_left)
            tell()
        else:
            reason = "no worker said why"
        # Progress resets the count: a spot instance that goes now and then must not end a
        # preparation of a day.
        fruitless = 0 if len(written) > before else fruitless + 1
        left = [file for file in left if file not in written]
        # What was being written comes last: it may be to blame.
        left = [*left[workers:], *left[:workers]]
        if left and fruitless == _FRUITLESS:
            raise FailureError(
                f"{preparation.partition.root}: workers died {_FRUITLESS} times over "
                f"{', '.join(left[:3])} ({reason}); what is finished is kept, run the same "
                "command again"
            )


def _end_pipelines() -> None:
    """Stop the threads that drive pipelines: Ray Data forgets one where Ctrl-C cuts it off.

    Such a thread would use a Ray that has ended, which ends the process without a word, or start
    another.
    """
    from ray.data._internal.execution.streaming_executor import StreamingExecutor

    for thread in threading.enumerate():
        if isinstance(thread, StreamingExecutor):
            thread.shutdown(force=True)
            thread.join(timeout=_END_S)


def _pipeline(jobs: list[Any], workers: int) -> "ray.data.Dataset":
    """Let ``workers`` of the cluster's CPUs write shards, and more where more than one are there.

    Actors instead of tasks: an actor has its next shards queued, where a task's end must first
    be noticed by the driver before that CPU gets another.
    """
    import ray
    from ray.util.annotations import RayDeprecationWarning

    # Back-pressure: an actor has at most ``_QUEUED`` shards waiting, and a shard is a number until
    # an actor takes it. Windows never pass through the object store, so memory is bounded by what
    # the actors work on, however slow the disk is.
    pool = ray.data.ActorPoolStrategy(
        min_size=1,
        max_size=len(jobs) if workers > 1 else 1,
        initial_size=min(workers, len(jobs)),
        max_tasks_in_flight_per_actor=_QUEUED,
    )
    numbers = ray.data.from_items(
        [{"number": number} for number in range(len(jobs))], override_num_blocks=len(jobs)
    )
    with warnings.catch_warnings():
        # Ray 2.60 has no other way yet to say that dead actors stay dead.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        return numbers.map(
            _ShardWriter,  # type: ignore[arg-type]
            fn_constructor_args=(jobs,),
            compute=pool,
            num_cpus=1,
            ray_remote_args_fn=lambda: {"max_restarts": 0, "max_task_retries": 0},
        )


class _ShardWriter:
    """Writes shards on a worker; a named error travels back as its sentence."""

    def __init__(self, jobs: list[Any]) -> None:
        self._jobs = jobs

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        import ray

        job: ShardJob = ray.get(self._jobs[row["number"]])
        try:
            return {"file": job.file, "summary": write_shard(job).to_json(), "failure": ""}
        except DyTrackError as error:
            return {"file": job.file, "summary": "", "failure": str(error)}

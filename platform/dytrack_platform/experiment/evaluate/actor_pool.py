"""Hand sequences to workers that hold the tracker, and take back what they found."""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from collections.abc import Sequence as List
from contextlib import contextmanager
from typing import Any

from dytrack_platform.experiment.cluster import session  # sets Ray's environment first

import ray  # isort: skip
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError

from dytrack_model.checkpoint import SavedTracker
from dytrack_platform.datasets.sequence import Sequence
from dytrack_platform.errors import ClusterError, FailureError
from dytrack_platform.experiment.evaluate.actor import Judge, Verdict
from dytrack_platform.experiment.evaluate.runtime_config import Running
from dytrack_platform.experiment.evaluate.specs import Entry

Work = tuple[Entry, Sequence]

_LOG = logging.getLogger(__name__)

_LIVES = 3  # how many workers may die on the same sequence


class JudgePool:
    """Workers that stay up between calls of :meth:`run`."""

    def __init__(self, hire: Callable[[], "ActorHandle[Any]"], workers: int) -> None:
        self._hire = hire
        self.judges = [hire() for _ in range(workers)]

    def run(self, work: List[Work]) -> Iterator[tuple[Work, Verdict]]:
        """Give verdicts as they come; work is handed out in the order given.

        A worker that dies is replaced, and its sequence is done again.

        Raises:
            FailureError: A tracker raised something unexpected, or workers kept dying.
        """
        waiting = deque((item, 1) for item in work)
        running: dict[Any, tuple[int, Work, int]] = {}
        idle = list(range(len(self.judges)))

        def hand_out() -> None:
            while waiting and idle:
                (item, life), place = waiting.popleft(), idle.pop()
                running[self.judges[place].judge.remote(*item)] = (place, item, life)

        hand_out()
        while running:
            (done,), _ = ray.wait(list(running))
            place, item, life = running.pop(done)
            idle.append(place)
            verdict = _verdict(done, item, life)
            if verdict is None:
                self.judges[place] = self._hire()
                waiting.appendleft((item, life + 1))
            hand_out()  # first, so that no worker waits while the caller writes
            if verdict is not None:
                yield item, verdict


def _verdict(reference: "ray.ObjectRef[Verdict]", item: Work, life: int) -> Verdict | None:
    """Give what came of it, or None where the worker died and another one may try."""
    entry, sequence = item
    try:
        verdict = ray.get(reference)
    except RayActorError as error:
        if life < _LIVES:
            _LOG.warning("%s at %s: the worker died, another one tries", sequence.name, entry.name)
            return None
        raise FailureError(
            f"{sequence.name} at {entry.name}: {_LIVES} workers died on it, most often for lack "
            "of memory; finished sequences are kept: run the command again with fewer --workers"
        ) from error
    except RayTaskError as error:
        raise FailureError(
            f"{sequence.name} at {entry.name}: the tracker failed: {error.cause!r:.300}"
        ) from error
    return verdict


@contextmanager
def judge_pool(
    saved: SavedTracker | None, *, workers: int, running: Running
) -> Iterator[JudgePool]:
    """Start workers on the cluster, or on a Ray that is started here.

    Args:
        saved: Our tracker; None where only others are judged.
        workers: How many work at a time.
        running: Runtime, and threads (CPUs) of each; on the device cuda each worker gets an
            equal share of the GPUs.

    Raises:
        ClusterError: Ray does not start, or lacks the CPUs or GPUs.
    """
    threads, device = running.threads, running.device
    with session.session(cpus=workers * threads):
        has = ray.cluster_resources()  # type: ignore[no-untyped-call]
        if has.get("CPU", 0) < workers * threads:
            raise ClusterError(
                f"{workers} workers of {threads} threads need {workers * threads} CPUs, and the "
                f"cluster has {has.get('CPU', 0):g}; ask for fewer with --workers"
            )
        gpus = 0.0
        if device != "cpu":
            if has.get("GPU", 0) < 1:
                raise ClusterError(f"device {device}: the cluster has no GPU; use --device cpu")
            gpus = min(1.0, has["GPU"] / workers)
        weights = ray.put(saved)

        def hire() -> "ActorHandle[Any]":
            judge = Judge.options(num_cpus=threads, num_gpus=gpus)  # type: ignore[attr-defined]
            return judge.remote(weights, running)  # type: ignore[no-any-return]

        pool = JudgePool(hire, workers)
        try:
            yield pool
        finally:
            for judge in pool.judges:
                ray.kill(judge)

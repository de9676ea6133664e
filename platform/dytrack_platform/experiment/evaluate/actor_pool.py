"""Hand sequences to workers that hold the tracker, and take back what they found."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dytrack_platform.experiment.cluster import room, session  # sets Ray's environment first

import ray  # isort: skip
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError

from dytrack_model.checkpoint import SavedTracker
from dytrack_platform.datasets.sequence import VideoSequence
from dytrack_platform.errors import ConfigurationError, DyTrackError, FailureError
from dytrack_platform.experiment.evaluate.actor import EvaluationActor, Outcome
from dytrack_platform.experiment.evaluate.runtime_config import RuntimeConfig
from dytrack_platform.experiment.evaluate.specs import TrackerSpec

Work = tuple[TrackerSpec, VideoSequence]

_LOG = logging.getLogger(__name__)

_ATTEMPTS = 3  # how many workers may die on the same sequence


class ActorPool:
    """Workers that stay up between calls of :meth:`run`."""

    def __init__(self, start: Callable[[], "ActorHandle[Any]"], workers: int) -> None:
        self._start = start
        self.actors = [start() for _ in range(workers)]

    def run(self, work: Sequence[Work]) -> Iterator[tuple[Work, Outcome]]:
        """Yield outcomes as they come; work is handed out in the order given.

        A worker that dies is replaced, and its sequence is done again.

        Raises:
            FailureError: A tracker raised something unexpected, or workers kept dying.
        """
        waiting = deque((item, 1) for item in work)
        running: dict[Any, tuple[int, Work, int]] = {}
        idle = list(range(len(self.actors)))

        def hand_out() -> None:
            while waiting and idle:
                (item, attempt), index = waiting.popleft(), idle.pop()
                running[self.actors[index].evaluate.remote(*item)] = (index, item, attempt)

        hand_out()
        while running:
            (done,), _ = ray.wait(list(running))
            index, item, attempt = running.pop(done)
            idle.append(index)
            outcome = _outcome(done, item, attempt)
            if outcome is None:
                self.actors[index] = self._start()
                waiting.appendleft((item, attempt + 1))
            hand_out()  # first, so that no worker waits while the caller writes
            if outcome is not None:
                yield item, outcome


def _outcome(reference: "ray.ObjectRef[Outcome]", item: Work, attempt: int) -> Outcome | None:
    """Return what came of it, or None where the worker died and another one may try."""
    spec, sequence = item
    try:
        outcome = ray.get(reference)
    except RayActorError as error:
        if attempt < _ATTEMPTS:
            _LOG.warning("%s at %s: the worker died, another one tries", sequence.name, spec.name)
            return None
        raise FailureError(
            f"{sequence.name} at {spec.name}: {_ATTEMPTS} workers died on it, most often for lack "
            "of memory; finished sequences are kept: run the command again with fewer --workers"
        ) from error
    except RayTaskError as error:
        raise FailureError(
            f"{sequence.name} at {spec.name}: the tracker failed: {_reason(error.cause)}"
        ) from error
    return outcome


def _reason(cause: object) -> str:
    """Say a sentence of ours as it is, and name the kind of anything else."""
    return str(cause) if isinstance(cause, DyTrackError) else f"{cause!r:.300}"


@contextmanager
def open_pool(
    saved: SavedTracker | None, *, workers: int, runtime: RuntimeConfig
) -> Iterator[ActorPool]:
    """Start workers on the cluster, or on a Ray that is started here.

    Args:
        saved: Our tracker; None where only others are judged.
        workers: How many work at a time.
        runtime: Runtime, and threads (CPUs) of each; on the device cuda each worker gets an
            equal share of the GPUs.

    Raises:
        ClusterError: Ray does not start.
        ConfigurationError: It lacks the CPUs or GPUs.
    """
    threads, device = runtime.threads, runtime.device
    with session.ray_session(cpus=workers * threads):
        bundle = {"CPU": float(threads)} | ({} if device == "cpu" else {"GPU": 1.0 / workers})
        if lack := room.lacking([bundle] * workers, _LOG.warning):
            cure = "ask for fewer with --workers" if "GPU" not in lack else "use --device cpu"
            raise ConfigurationError(f"{lack}; {cure}, or add nodes")
        gpus = 0.0 if device == "cpu" else min(1.0, session.resources()["GPU"] / workers)
        weights = ray.put(saved)

        def start() -> "ActorHandle[Any]":
            actor = EvaluationActor.options(num_cpus=threads, num_gpus=gpus)  # type: ignore[attr-defined]
            return actor.remote(weights, runtime)  # type: ignore[no-any-return]

        pool = ActorPool(start, workers)
        try:
            yield pool
        finally:
            for actor in pool.actors:
                ray.kill(actor)

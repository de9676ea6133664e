"""The channel: where training's workers post, and where its driver reads and writes.

One actor, so that there is one writer to MLflow wherever workers run, and so that an error of
our own or a request to stop reaches everybody.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from dytrack_platform.experiment.cluster import session  # noqa: F401  (sets Ray's environment first)

import ray  # isort: skip
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dytrack_platform.errors import DyTrackError, StorageError, first_line
from dytrack_platform.experiment.runs import provenance
from dytrack_platform.experiment.runs.journal import Journal
from dytrack_platform.training.progress import Progress

Show = Callable[[Progress], None]
_LOG = logging.getLogger(__name__)
_LOAD_EVERY_S = 10.0


class Posted(NamedTuple):
    """What workers posted since the last look."""

    progress: list[Progress]
    values: list[tuple[int, dict[str, float]]]
    """Metrics with their steps."""
    images: list[tuple[int, bytes]]
    sentences: list[str]


class ChannelStatus(NamedTuple):
    """What concerns every worker."""

    stopping: bool
    """The command was told to end: write a checkpoint and stop."""
    refusal: tuple[type[DyTrackError], str] | None
    """An error of ours: it would only happen again."""


@ray.remote(num_cpus=0, max_restarts=0)
class DriverChannel:
    """Holds posts until the driver fetches them."""

    def __init__(self) -> None:
        self._posted = Posted([], [], [], [])
        self._refusal: tuple[type[DyTrackError], str] | None = None
        self._stopping = False

    def refuse(self, kind: type[DyTrackError], sentence: str) -> None:
        """Note an error of ours; the first one counts."""
        self._refusal = self._refusal or (kind, sentence)

    def stop(self) -> None:
        """Ask the workers for a checkpoint and the end."""
        self._stopping = True

    def status(self) -> ChannelStatus:
        """Return what concerns every worker."""
        return ChannelStatus(self._stopping, self._refusal)

    def progress(self, progress: Progress) -> None:
        """Post progress."""
        self._posted.progress.append(progress)

    def values(self, step: int, values: dict[str, float]) -> None:
        """Post metrics of a step."""
        self._posted.values.append((step, values))

    def sample_images(self, step: int, png: bytes) -> None:
        """Post a PNG file."""
        self._posted.images.append((step, png))

    def say(self, sentence: str) -> None:
        """Post a sentence."""
        self._posted.sentences.append(sentence)

    def drain(self) -> Posted:
        """Return what was posted since the last call."""
        posted, self._posted = self._posted, Posted([], [], [], [])
        return posted


def open_channel(name: str) -> Any:  # noqa: ANN401  (an actor handle)
    """Start a channel on the driver's own node: with any other node the training goes on."""
    here = ray.get_runtime_context().get_node_id()
    return DriverChannel.options(  # type: ignore[attr-defined]
        # On another node the channel could die alone, and every worker would wait for it.
        name=name,
        scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False),
    ).remote()


def points(progress: Progress) -> dict[str, float]:
    """Name the curves of a progress report."""
    values = {f"train/{name}": value for name, value in progress.losses.items()}
    values |= {f"grad_norm/{name}": value for name, value in progress.grad_norms.items()}
    values |= {f"learning_rate/{name}": value for name, value in progress.rates.items()}
    return values | {
        "speed/samples_per_s": progress.samples_per_s,
        "speed/step_s": progress.step_s,
        "speed/data_wait": progress.data_wait,
        "speed/gflops": progress.gflops,
        "speed/mfu": progress.mfu,
        "epoch": float(progress.epoch),
        "skipped_batches": float(progress.skipped),
    }


@contextmanager
def _told_once(known: set[str]) -> Iterator[None]:
    """Log what is raised and go on: a terminal that is gone must not end the watch over the run."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  (whatever a terminal or a journal raises)
        reason = first_line(error)
        if reason not in known:
            known.add(reason)
            _LOG.warning("the progress of the training cannot be shown: %s", reason)


@contextmanager
def watching(
    channel: Any,  # noqa: ANN401  (an actor handle)
    show: Show,
    say: Callable[[str], None],
    journal: Journal,
    require_lock: Callable[[], None],
) -> Iterator[None]:
    """Show and note what workers post while the body runs; stop them where another took over.

    Args:
        channel: Where they post.
        show: Called with progress.
        say: Called with sentences.
        journal: Notes metrics and pictures.
        require_lock: Raises :class:`StorageError` where the run is another command's now.
    """
    done = threading.Event()
    loaded = float("-inf")

    def fetch() -> None:
        nonlocal loaded
        posted: Posted = ray.get(channel.drain.remote())
        for sentence in posted.sentences:
            say(sentence)
        for progress in posted.progress:
            show(progress)
            journal.metrics(points(progress), progress.step, progress.at)
            # The machine's load moves slowly, and asking for it costs more than a point of a curve.
            if time.monotonic() - loaded > _LOAD_EVERY_S:
                loaded = time.monotonic()
                journal.metrics(provenance.load(), progress.step)
        for step, values in posted.values:
            journal.metrics(values, step)
        for step, png in posted.images:
            journal.file(f"samples/step_{step:08d}.png", png)

    def watch() -> None:
        known = set[str]()
        while not done.wait(0.5):
            with _told_once(known):
                fetch()
            try:
                require_lock()
            except StorageError as error:
                channel.refuse.remote(StorageError, str(error))
                channel.stop.remote()

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        fetch()

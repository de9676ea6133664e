"""One trial: train a configuration, and after every epoch say what its points are worth.

A lean trial trains in the process that Ray Tune gave it. Nothing is written but, between epochs,
the state to go on from, and at the end the tracker.
"""

import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from dytrack_model import checkpoint
from dytrack_model.config import ModelConfig
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import OperatingPoint
from dytrack_platform.config import ExperimentConfig, SearchConfig, resolve, to_dict
from dytrack_platform.errors import TrainingError
from dytrack_platform.experiment.search.points import threshold_front as solving
from dytrack_platform.experiment.search.points.exit_cache import ExitCache, from_pairs
from dytrack_platform.experiment.search.points.latency import Latency, costs_of
from dytrack_platform.experiment.search.points.rerun import record
from dytrack_platform.experiment.search.points.threshold_front import Point
from dytrack_platform.storage import files
from dytrack_platform.training import memory, rng_state, worker
from dytrack_platform.training import state as state_files
from dytrack_platform.training.callbacks import Callbacks, Request
from dytrack_platform.training.distributed import DistributedContext
from dytrack_platform.training.objective import TrainModule
from dytrack_platform.training.progress import Progress
from dytrack_platform.training.state import TrainingState

METRIC, EPOCH = "hypervolume", "epoch"
TRACKER, STATE = "tracker", "state"
_HALT = "halt"
"""File beside a trial's state that asks its workers to end; it goes with the state."""

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What every trial of a search shares."""

    recipe: dict[str, Any]
    reference: tuple[float, ...]
    location: str
    """The search's folder or URL; a trial has ``trials/NNN`` below it."""

    def folder(self, number: int) -> str:
        """Return a trial's own folder."""
        return f"{self.location}/trials/{number:03d}"


def has_tracker(job: Job, number: int) -> bool:
    """Say whether a trial's tracker is there as a whole."""
    return files.exists(f"{job.folder(number)}/{TRACKER}/{checkpoint.DESCRIPTION}")


def states(job: Job, number: int) -> list[str]:
    """Return the state that an interrupted trial goes on from, if there is one."""
    state = f"{job.folder(number)}/{STATE}"
    return [state] if files.exists(f"{state}/{state_files.SEAL}") else []


def halt(job: Job, number: int) -> None:
    """Ask a trial that trains in other processes to end.

    Raises:
        StorageError: There is no space or no permission.
    """
    files.write_bytes(f"{job.folder(number)}/{STATE}/{_HALT}", b"\n")


def is_halted(job: Job, number: int) -> bool:
    """Say whether a trial was asked to end."""
    return files.exists(f"{job.folder(number)}/{STATE}/{_HALT}")


def tidy(job: Job, number: int, *, stopped: bool) -> None:
    """Remove the state of a trial that ended; one that was stopped keeps its tracker of then.

    Its points count like those of all others, and cheap trackers are stopped sooner: a small
    hypervolume of their own may be what the front lacks.

    Raises:
        StorageError: The tracker cannot be written.
    """
    state = f"{job.folder(number)}/{STATE}"
    if stopped and not has_tracker(job, number) and states(job, number):
        files.copy_folder(f"{state}/{state_files.TRACKER}", f"{job.folder(number)}/{TRACKER}")
    files.remove_folder(state)


def shortened(recipe: Mapping[str, Any], changes: Mapping[str, Any]) -> ExperimentConfig:
    """Return the recipe of a trial: with its changes, and as long as ``search`` says.

    A search ranks configurations, and takes it that short trainings rank them as long ones do.

    Raises:
        ConfigurationError: The changes make no valid recipe.
    """
    config = resolve(recipe, changes)
    search = config.search
    pairs = search.pairs_per_epoch or config.data.pairs_per_epoch
    steps = max(1, pairs // config.train.batch_size)
    return resolve(
        to_dict(config),
        {
            "train.epochs": changes.get("train.epochs", search.epochs),
            "data.pairs_per_epoch": pairs,
            "train.checkpoint_steps": steps,
            "train.sample_images": 0,
        },
    )


def judged_by(recipe: Mapping[str, Any], model: ModelConfig) -> ExperimentConfig:
    """Return the recipe that a trial's tracker is judged by: the search's own, with its model.

    All trackers of a search are judged alike, by trials as by the front. Held-out pairs also
    depend on jitter, gap, seed and batch size, and videos are followed in the training's number
    format: were those a trial's own, easy pairs would look like a good tracker.

    Args:
        recipe: The search's.
        model: The trial's.
    """
    return resolve({**recipe, "model": model.to_dict()})


def pair_cache(
    config: ExperimentConfig, network: DyTrackNetwork, device: torch.device
) -> ExitCache:
    """Return what a network's exits say of the recipe's validation pairs."""
    module = TrainModule(config.model, config.loss, config.distillation)
    module.network = network
    return held_out(config, module.to(device), device)


def held_out(config: ExperimentConfig, module: TrainModule, device: torch.device) -> ExitCache:
    """Return what a module's exits say of held-out data: of videos in memory, else of pairs.

    Raises:
        ConfigurationError: Pairs from pictures in memory belong to no sequence.
    """
    if config.data.resident_validation:
        was_training = module.training
        many, films = memory.followed(config, module, device)
        cache = record(many, films)
        module.train(was_training)
        return cache
    (predicted, true), names = worker.validation_outputs(config, module, device)
    found = (predicted.double().numpy(), true.double().numpy())
    return from_pairs(config.model.exits, *found, names)


def points_of(
    solved: solving.Solved, search: SearchConfig, reference: tuple[float, ...]
) -> list[dict[str, Any]]:
    """Return a trial's points that beat the reference and that no other beats, as plain JSON.

    Their hypervolume is the trial's own. What each sequence gives is left out: it would be most
    of the record, and whoever judges the tracker finds it again.
    """
    kept = [
        replace(point, by_sequence={})
        for point in solved.points
        if solving.keeps(point.values, search)
        and solving.volume([point], search.objectives, reference) > 0
    ]
    return [point_to_dict(kept[k]) for k in solving.unbeaten(kept, search.objectives)]


def point_to_dict(point: Point) -> dict[str, Any]:
    """Return plain JSON types; infinity becomes text."""
    limits = [value if math.isfinite(value) else "inf" for value in point.thresholds]
    return {**asdict(point), "exits": list(point.exits), "thresholds": limits}


def point_from_dict(values: Mapping[str, Any]) -> Point:
    """Build from what :func:`point_to_dict` gave."""
    return Point(
        exits=tuple(values["exits"]),
        thresholds=tuple(float(value) for value in values["thresholds"]),
        rule=values.get("rule", "thresholds"),
        shares=tuple(values["shares"]),
        values=dict(values["values"]),
        by_sequence=dict(values["by_sequence"]),
    )


class Writer:
    """Scores the module after every epoch, reports it, and keeps what is needed to go on.

    Args:
        config: The trial's recipe.
        job: What all trials share.
        number: The trial's.
        latency: Times of its exits, where they count.
        context: This worker.
        report: Takes the score; in a trial with several workers every one calls it.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        job: Job,
        number: int,
        latency: Latency | None,
        context: DistributedContext,
        report: Report,
    ) -> None:
        self._config, self._job, self._number = config, job, number
        self._judged = judged_by(job.recipe, config.model)
        self._latency, self._context, self._report = latency, context, report
        self.clock = Clock()
        self._evaluated = 0.0

    def checkpoint(self, state: TrainingState, progress: Progress) -> None:
        """Score, keep and report; not within an epoch, where a trial that was stopped ends."""
        if state.step % self._config.train.checkpoint_steps:
            return
        self.clock.pause()
        began = time.monotonic()
        module = state_files.trained(state, self._config)
        tensors = state_files.gather(state)
        metrics: dict[str, Any] = {EPOCH: state.step // self._config.train.checkpoint_steps}
        if self._context.rank == 0:
            if not math.isfinite(progress.losses["loss"]):
                raise TrainingError(f"the loss is not finite at step {state.step}")
            metrics |= self._score(module)
        self._evaluated += time.monotonic() - began
        self._keep(state, module, tensors)
        metrics["seconds"] = {"steps": self.clock.steps, "evaluation": self._evaluated}
        metrics["memory_megabytes"] = psutil.Process().memory_info().rss / 1e6
        metrics["losses"] = {k: float(v) for k, v in progress.losses.items()}
        self._report(metrics)
        self.clock.resume()

    def sample_images(self, state: TrainingState) -> None:
        """Draw nothing."""

    def _score(self, module: TrainModule) -> dict[str, Any]:
        search = self._config.search
        cache = held_out(self._judged, module, self._context.device)
        solved = solving.solve(
            cache,
            [self._config.model.exits],
            costs_of(module.network, self._latency),
            search,
            self._job.reference,
        )
        if not math.isfinite(solved.hypervolume):
            raise TrainingError("the hypervolume is not finite: an exit's boxes are NaN")
        points = points_of(solved, search, self._job.reference)
        return {METRIC: solved.hypervolume, "points": json.dumps(points)}

    def _keep(
        self, state: TrainingState, module: TrainModule, tensors: dict[str, torch.Tensor]
    ) -> None:
        target = self._job.folder(self._number)
        last = state.step == worker.steps_of(self._config)
        if self._context.rank > 0:
            return
        folder = Path(tempfile.mkdtemp(prefix="dytrack-"))
        try:
            if last:
                about = {"experiment": self._config.name, "trial": self._number, "step": state.step}
                exits = len(self._config.model.exits)
                point = OperatingPoint(name="accurate", thresholds=(math.inf,) * (exits - 1))
                checkpoint.save(folder / TRACKER, module.network, [point], about)
                files.put_folder(folder / TRACKER, f"{target}/{TRACKER}")
            else:
                # Of several workers the others begin anew with random states of this step's own:
                # files of theirs could be of another step when the trial is killed.
                rng_state.save(folder, 0)
                state_files.save(folder, state, self._config, tensors, module, 1)
                files.put_folder(folder, f"{target}/{STATE}", last=state_files.SEAL)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class Clock(Callbacks):
    """Sums the time of training steps, without what happens between epochs."""

    def __init__(self) -> None:
        self.steps = 0.0
        self._since: float | None = None

    def request(self, step: int) -> Request:
        """Note that a step is done; the first one is not counted, for it starts the clock."""
        if self._since is None:
            self._since = time.monotonic()
        return Request.NOTHING

    def pause(self) -> None:
        """Stop the clock."""
        if self._since is not None:
            self.steps += time.monotonic() - self._since
        self._since = None

    def resume(self) -> None:
        """Start it again."""
        self._since = time.monotonic()


def train_lean(
    job: Job, number: int, changes: Mapping[str, Any], latency: Latency | None, report: Report
) -> None:
    """Train a trial in this process, from its last report on where it was interrupted.

    Raises:
        TrainingError: The loss, or what the exits say, is not finite.
    """
    config = shortened(job.recipe, changes)
    torch.set_num_threads(max(1, int(config.train.cpus_per_worker)))
    context = DistributedContext(device=torch.device("cuda" if config.train.gpu else "cpu"))
    writer = Writer(config, job, number, latency, context, report)
    before = states(job, number)
    worker.train(config, writer.clock, context, before, files.local_copy, writer=writer)

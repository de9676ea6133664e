"""Train over Ray: the same recipe on a laptop and on every node of a cluster."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dytrack_platform.experiment import cluster, storage, tracking  # sets Ray's environment first

import ray  # isort: skip
import ray.train
import torch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device

from dytrack_platform.config import ExperimentConfig, dump, flatten, resolve, to_dict
from dytrack_platform.errors import ClusterError, ConfigurationError, DyTrackError, TrainingError
from dytrack_platform.experiment.paths import with_absolute_paths
from dytrack_platform.training import worker
from dytrack_platform.training.loop import Progress
from dytrack_platform.training.state import TRACKER

_RECORD = "experiment.json"
_PREFIX = "step_"

Show = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What a finished training left behind."""

    tracker: str
    """Folder (or URL) of the tracker, with its operating points."""
    metrics: dict[str, float]
    """Last validation: ``val/exit2/iou`` and the like."""
    run_id: str
    """Its run in MLflow."""
    started_at: int
    """Step that this call continued from; 0 for a new run."""


def train(config: ExperimentConfig, show: Show, say: Callable[[str], None]) -> Trained:
    """Train, or continue a run of the same name and the same configuration.

    Args:
        config: The experiment.
        show: Called with progress, about twice a second.
        say: Called with one-line messages (continuing, already finished).

    Raises:
        ConfigurationError: A run of this name exists with another configuration.
        ClusterError: The cluster is smaller than the recipe asks for.
        DataError: A prepared folder is missing or too small.
        TrainingError: Training ended before its last step.
    """
    config = with_absolute_paths(config)
    location = f"{config.train.storage}/{config.name}"
    record = _claim(config, location)
    if record.get("finished"):
        say(f"{config.name}: already finished in {location}; nothing to train")
        return _finished(record)
    worker.check(config)
    kept = storage.folders(location, _PREFIX)
    start = int(kept[0].rpartition(_PREFIX)[2]) if kept else 0
    if start:
        say(f"{config.name}: continuing {location} from step {start}")
    with (
        tracking.run(config.name, run_id=record["run_id"]) as run,
        cluster.session(),
    ):
        record["run_id"] = run.run_id
        storage.write_json(f"{location}/{_RECORD}", record)
        run.parameters(flatten(to_dict(config)))
        run.text(dump(config), "recipe.yaml")
        _require_room(config)
        metrics = _fit(config, location, show, run)
        newest = storage.folders(location, _PREFIX)[0]
        tracker = storage.copy_folder(f"{newest}/{TRACKER}", f"{location}/{TRACKER}")
        record |= {"finished": True, "tracker": tracker, "metrics": metrics}
        storage.write_json(f"{location}/{_RECORD}", record)
        run.metrics(metrics, step=int(metrics["step"]))
    return _finished(record, start)


def _claim(config: ExperimentConfig, location: str) -> dict[str, Any]:
    """Read the run's record, or begin one; refuse a name that belongs to another experiment."""
    recipe = to_dict(config)
    record = storage.read_json(f"{location}/{_RECORD}")
    if record is None:
        return {"recipe": recipe, "run_id": None}
    before, now = flatten(record["recipe"]), flatten(recipe)
    changed = sorted(key for key in before | now if before.get(key) != now.get(key))
    if changed:
        key = changed[0]
        raise ConfigurationError(
            f"name: {location} holds a run of another configuration ({key} was "
            f"{before.get(key)!r}, is {now.get(key)!r}; {len(changed)} in all): "
            "choose another name, or remove that folder"
        )
    if record["run_id"] is not None and not tracking.exists(record["run_id"]):
        record["run_id"] = None
    return record


def _require_room(config: ExperimentConfig) -> None:
    """Say at once what Ray would otherwise wait for without end."""
    has = ray.cluster_resources()  # type: ignore[no-untyped-call]
    needs = {"CPU": config.train.workers * config.train.cpus_per_worker}
    if config.train.gpu:
        needs["GPU"] = float(config.train.workers)
    for kind, count in needs.items():
        if has.get(kind, 0.0) < count:
            raise ClusterError(
                f"train.workers: {config.train.workers} workers need {count:g} {kind}, "
                f"the cluster has {has.get(kind, 0.0):g}; lower train.workers or add nodes"
            )


def _fit(
    config: ExperimentConfig, location: str, show: Show, run: tracking.Run
) -> dict[str, float]:
    settings = config.train
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(settings.start_timeout_s)
    board = _Board.remote()  # type: ignore[attr-defined]
    trainer = TorchTrainer(
        _work,
        train_loop_config={"recipe": to_dict(config), "location": location, "board": board},
        scaling_config=ScalingConfig(
            num_workers=settings.workers,
            use_gpu=settings.gpu,
            resources_per_worker={"CPU": settings.cpus_per_worker},
        ),
        run_config=RunConfig(
            name=config.name,
            storage_path=location.rpartition("/")[0],
            checkpoint_config=CheckpointConfig(num_to_keep=settings.keep),
            failure_config=FailureConfig(
                max_failures=settings.max_failures,
                controller_failure_limit=3,  # type: ignore[call-arg]  # Train V2's own class
            ),
        ),
    )
    with _watching(board, show, run):
        try:
            result = trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise TrainingError(_cause(error)) from error
    refusal = ray.get(board.refusal.remote())
    if refusal is not None:
        kind, sentence = refusal
        raise kind(sentence)
    return {k: float(v) for k, v in (result.metrics or {}).items()}


def _work(settings: dict[str, Any]) -> None:
    """Run one worker inside Ray Train.

    An error of ours would only happen again: it goes to the board, and neither this group of
    workers nor the next one tries once more. Anything else reaches Ray, which replaces workers.
    """
    board = settings["board"]
    if ray.get(board.refusal.remote()) is not None:
        return
    try:
        _train_worker(settings)
    except DyTrackError as error:
        ray.get(board.refuse.remote(type(error), str(error)))


def _train_worker(settings: dict[str, Any]) -> None:
    config = resolve(settings["recipe"])
    context = ray.train.get_context()
    torch.set_num_threads(max(1, int(config.train.cpus_per_worker)))
    place = worker.Place(
        rank=context.get_world_rank(), world=context.get_world_size(), device=get_device()
    )
    outlet = _RayOutlet(settings["board"], place.rank)
    kept = storage.folders(settings["location"], _PREFIX)
    worker.train(config, outlet, place, storage.local_copies(kept))


class _RayOutlet:
    """Sends progress to the driver's board and checkpoints to Ray Train."""

    def __init__(self, board: Any, rank: int) -> None:  # noqa: ANN401  (an actor handle)
        self._board = board
        self._rank = rank

    def progress(self, progress: Progress) -> None:
        if self._rank == 0:
            self._board.post.remote(progress)

    def checkpoint(self, folder: Path | None, metrics: dict[str, float]) -> None:
        # The step names the folder, so that a step done again after a crash replaces its own.
        name = f"{_PREFIX}{int(metrics['step']):08d}"
        kept = Checkpoint.from_directory(folder) if folder else None
        ray.train.report(metrics, checkpoint=kept, checkpoint_dir_name=name)


@ray.remote(num_cpus=0)
class _Board:
    """Holds progress until the driver fetches it: one writer to MLflow, wherever workers run."""

    def __init__(self) -> None:
        self._posted: list[Progress] = []
        self._refusal: tuple[type[DyTrackError], str] | None = None

    def refuse(self, kind: type[DyTrackError], sentence: str) -> None:
        self._refusal = (kind, sentence)

    def refusal(self) -> tuple[type[DyTrackError], str] | None:
        return self._refusal

    def post(self, progress: Progress) -> None:
        self._posted.append(progress)

    def drain(self) -> list[Progress]:
        posted, self._posted = self._posted, []
        return posted


@contextmanager
def _watching(board: Any, show: Show, run: tracking.Run) -> Iterator[None]:  # noqa: ANN401
    """Show and log what workers post while the body runs."""
    done = threading.Event()

    def fetch() -> None:
        for progress in ray.get(board.drain.remote()):
            show(progress)
            values = {f"train/{name}": value for name, value in progress.losses.items()}
            values |= {
                "samples_per_s": progress.samples_per_s,
                "data_wait": progress.data_wait,
                "rate": progress.rate,
                "grad_norm": progress.grad_norm,
                "epoch": float(progress.epoch),
            }
            run.metrics(values, progress.step)

    def watch() -> None:
        while not done.wait(0.5):
            fetch()

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        fetch()


def _finished(record: dict[str, Any], started_at: int = 0) -> Trained:
    return Trained(
        tracker=str(record["tracker"]),
        metrics=dict(record["metrics"]),
        run_id=str(record["run_id"]),
        started_at=started_at,
    )


def _cause(error: Exception) -> str:
    """Give the last line of the innermost error, which is the sentence that was meant."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__

"""Train over Ray: the same recipe on a laptop and on every node of a cluster."""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dytrack_platform.experiment.cluster import session  # sets Ray's environment first
from dytrack_platform.experiment.runs import tracking
from dytrack_platform.storage import files

import ray  # isort: skip
import ray.train
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.validation_config import ValidationConfig

from dytrack_platform.config import ExperimentConfig, dump, flatten, require_same, to_dict
from dytrack_platform.datasets.prepared.fingerprint import changes, fingerprint
from dytrack_platform.errors import ConfigurationError, DataError, TrainingError
from dytrack_platform.experiment.cluster import preflight
from dytrack_platform.experiment.cluster.termination import TerminableTorch
from dytrack_platform.experiment.paths import with_absolute_paths
from dytrack_platform.experiment.runs import pareto, provenance
from dytrack_platform.experiment.runs.journal import Journal
from dytrack_platform.experiment.runs.journal_folder import (
    deliver_kept,
    journal_folder,
    kept_beside,
)
from dytrack_platform.experiment.runs.pareto import RunPoint, RunPoints
from dytrack_platform.experiment.runs.run_log import logged_run, upload
from dytrack_platform.experiment.runs.store_lock import store_lock
from dytrack_platform.experiment.train.driver_channel import Show, open_channel, watching
from dytrack_platform.experiment.train.patient_store import patient_store
from dytrack_platform.experiment.train.worker import PREFIX, validate_beside, work
from dytrack_platform.storage.filesystem import local_path
from dytrack_platform.storage.patience import patience
from dytrack_platform.storage.run_lock import run_lock
from dytrack_platform.training import worker
from dytrack_platform.training.state import TRACKER
from dytrack_platform.training.stopping import end_stopped, stopping_gently

__all__ = ["Show", "Trained", "train", "upload_pending"]

_LOCK = "train.lock"
_RECORD = "experiment.json"
_SEARCH = "search.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What a finished training left behind."""

    tracker: str
    """Folder (or URL) of the tracker, with its operating points."""
    metrics: dict[str, float]
    """Last validation: ``val/exit2/iou`` and the like."""
    run_id: str
    """Its run in MLflow."""


def train(config: ExperimentConfig, show: Show, say: Callable[[str], None]) -> Trained:
    """Train, or continue a run of the same name and the same configuration.

    Args:
        config: The experiment.
        show: Called with progress, about twice a second.
        say: Called with one-line messages (continuing, already finished).

    Raises:
        ConfigurationError: A run of this name exists with another configuration, the cluster is
            smaller than the recipe asks for, or its nodes do not share the storage.
        AccessError: The cluster or MLflow does not answer, or refuses who asks.
        DataError: A prepared folder is missing, too small, or changed since the run began.
        StorageError: The storage or the disk of MLflow's store is full, or another command is at
            work on the run.
        TrainingError: Training ended before its last step.
        SystemExit: The command was told to end; a checkpoint was written.
    """
    config = with_absolute_paths(config)
    location = f"{config.train.storage}/{config.name}"
    with _only_here(location, say) as require_lock:
        record = _claim(config, location)
        if record.get("finished"):
            say(f"{config.name}: already finished in {location}; nothing to train")
            return _finished(record)
        for sentence in worker.check(config):
            say(f"{config.train.init_from}: {sentence}")
        _require_same_data(config, record, location)
        with session.ray_session():
            preflight.wake()
            _train(config, location, record, show, say, require_lock)
    return _finished(record)


@contextmanager
def _only_here(location: str, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Keep other machines from a run on a store; on this one the run's own lock does.

    Yields what to call before a write; see :func:`store_lock`.
    """
    if local_path(location) is not None:
        yield lambda: None
        return
    folder = journal_folder(location)
    with (
        run_lock(folder, name=_LOCK),
        store_lock(f"{location}/{_LOCK}", folder, say) as require_lock,
    ):
        yield require_lock


def _train(
    config: ExperimentConfig,
    location: str,
    record: dict[str, Any],
    show: Show,
    say: Callable[[str], None],
    require_lock: Callable[[], None],
) -> None:
    """Train under a record in MLflow; the run's own record says at the end that it is finished."""
    with (
        kept_beside(location, say, new=record["run_id"] is None) as folder,
        logged_run(config.name, folder, record["run_id"], say, run=location) as (run_id, log),
    ):
        record["run_id"] = run_id
        files.write_json(f"{location}/{_RECORD}", record)
        log.parameters(flatten(to_dict(config)))
        log.tags(provenance.code())
        log.file("recipe.yaml", dump(config).encode())
        log.file("environment.txt", provenance.environment().encode())
        preflight.require_room(config, say)
        preflight.require_shared(config, location)
        with patience(say):
            metrics = _fit(config, location, run_id, show, say, log, require_lock)
            require_lock()
            newest = files.folders(location, PREFIX)[0]
            # With a name of its own: the checkpoint it comes from may be removed by a later run.
            tracker = files.copy_folder(f"{newest}/{TRACKER}", f"{location}/{TRACKER}")
            record |= {"finished": True, "tracker": tracker, "metrics": metrics}
            files.write_json(f"{location}/{_RECORD}", record)
        log.metrics(metrics, step=int(metrics["step"]))
        _log_points(log, config, metrics)


def _log_points(log: Journal, config: ExperimentConfig, metrics: dict[str, float]) -> None:
    """Keep the front of the operating points on the validation data."""
    start = "val/point/"
    names = dict.fromkeys(
        k[len(start) :].rpartition("/")[0] for k in metrics if k.startswith(start)
    )
    own = RunPoints(
        name=config.name,
        kind="train",
        measure="iou",
        data=f"validation data of {config.name}",
        protocol="pairs",
        machine=provenance.machine(),
        points=tuple(
            RunPoint(
                name=name,
                accuracy=metrics[f"{start}{name}/iou"],
                gmacs=metrics[f"{start}{name}/gmacs"],
            )
            for name in names
        ),
    )
    if not own.points:
        return
    with TemporaryDirectory(prefix="dytrack-") as folder:
        for path in pareto.write(Path(folder), own):
            log.file(path.name, path.read_bytes())
    log.metrics({"hypervolume": own.hypervolume}, step=int(metrics["step"]))


def upload_pending(location: str) -> str:
    """Deliver to MLflow what it lacks of a run; returns the run's id.

    Raises:
        ConfigurationError: There is no run in this folder.
        AccessError: MLflow does not answer, or refuses who asks.
        StorageError: A command is at work on the run.
    """
    location = files.absolute(location)
    record = files.read_json(f"{location}/{_RECORD}") or files.read_json(f"{location}/{_SEARCH}")
    if record is None or record.get("run_id") is None:
        raise ConfigurationError(
            f"{location}: holds no run; name the folder of a training or a search"
        )
    deliver_kept(location, lambda folder: upload(folder, record["run_id"]))
    return str(record["run_id"])


def _claim(config: ExperimentConfig, location: str) -> dict[str, Any]:
    """Read the run's record, or begin one; refuse a name that belongs to another experiment."""
    recipe = to_dict(config)
    record = files.read_json(f"{location}/{_RECORD}")
    if record is None:
        return {"recipe": recipe, "run_id": None, "data": None}
    require_same(record["recipe"], config, location)
    if record["run_id"] is not None and not tracking.exists(record["run_id"]):
        record["run_id"] = None
    return record


def _require_same_data(config: ExperimentConfig, record: dict[str, Any], location: str) -> None:
    """Note what the data are, or refuse to go on with others."""
    now = fingerprint(config.data)
    if record.get("data") is None:
        record["data"] = now
        return
    changed = changes(record["data"], now)
    if changed:
        raise DataError(
            f"data changed since {location} began: {'; '.join(changed)}: restore them, or train "
            "under another name"
        )


def _fit(
    config: ExperimentConfig,
    location: str,
    run_id: str,
    show: Show,
    say: Callable[[str], None],
    log: Journal,
    require_lock: Callable[[], None],
) -> dict[str, float]:
    name = f"dytrack-channel-{uuid.uuid4().hex}"
    channel = open_channel(name)
    trainer = _trainer(config, location, run_id, name, channel)
    error: Exception | None = None
    metrics: dict[str, Any] = {}
    with (
        watching(channel, show, say, log, require_lock),
        stopping_gently(channel.stop.remote, config.train.grace_s, say) as told,
    ):
        try:
            metrics = dict(trainer.fit().metrics or {})
        except ray.train.TrainingFailedError as failed:
            error = failed
        except SystemExit as ended:
            if told():
                raise
            raise KeyboardInterrupt from ended  # how Ray says that Ctrl-C was pressed
    # An error of ours reached the driver as a sentence; what Ray made of the worker's end says
    # less.
    refusal = ray.get(channel.status.remote()).refusal
    if refusal is not None:
        kind, sentence = refusal
        raise kind(sentence) from error
    if error is not None:
        raise TrainingError(_cause(error)) from error
    if told() and metrics.get("step") != worker.steps_of(config):
        end_stopped(metrics.get("step", 0), say)
    return {key: float(value) for key, value in metrics.items()}


def _trainer(
    config: ExperimentConfig,
    location: str,
    run_id: str,
    name: str,
    channel: Any,  # noqa: ANN401  (an actor handle)
) -> TorchTrainer:
    settings = config.train
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(settings.start_timeout_s)
    workers: Any = settings.workers
    if 0 < settings.min_workers < settings.workers:
        # Elastic: Ray starts with what is there and takes more when nodes join.
        workers = (settings.min_workers, settings.workers)  # Train V2's class knows a range
    given = {
        "recipe": to_dict(config),
        "location": location,
        "channel": channel,
        "channel_name": name,
        "run_id": run_id,
    }
    validation = ValidationConfig(
        fn=validate_beside,
        ray_remote_kwargs={"num_cpus": 1, "num_gpus": 1 if settings.gpu else 0, "max_retries": 1},
    )
    store, path = patient_store(location.rpartition("/")[0], name)
    return TorchTrainer(
        work,
        train_loop_config=given,
        torch_config=TerminableTorch(),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=settings.gpu,
            resources_per_worker={"CPU": settings.cpus_per_worker},
        ),
        run_config=RunConfig(
            name=config.name,
            storage_path=path,
            storage_filesystem=store,
            checkpoint_config=CheckpointConfig(num_to_keep=settings.keep_checkpoints),
            failure_config=FailureConfig(
                max_failures=settings.max_failures,
                # Train V2's own class, which has more fields than the one that mypy sees.
                controller_failure_limit=settings.controller_failures,  # type: ignore[call-arg]
            ),
        ),
        validation_config=validation if settings.validate_every else None,
    )


def _finished(record: dict[str, Any]) -> Trained:
    return Trained(
        tracker=str(record["tracker"]),
        metrics=dict(record["metrics"]),
        run_id=str(record["run_id"]),
    )


def _cause(error: Exception) -> str:
    """Return the last line of the innermost error, which is the sentence that was meant."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__

"""Search over Ray Tune: exit placement, recycling and distillation, for accuracy and for cost."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dytrack_platform.experiment.cluster import session  # sets Ray's environment first
from dytrack_platform.experiment.runs import tracking
from dytrack_platform.storage import files

import optuna  # isort: skip
import ray.tune
import torch
from ray.tune import CheckpointConfig, FailureConfig, ResultGrid, RunConfig, TuneConfig, Tuner
from ray.tune.search.optuna import OptunaSearch

from dytrack_model.cost import exit_gmacs
from dytrack_model.policy import OperatingPoint
from dytrack_model.thresholds import exits_taken
from dytrack_platform.config import ExperimentConfig, flatten, resolve, to_dict
from dytrack_platform.errors import TrainingError
from dytrack_platform.experiment.paths import with_absolute_paths
from dytrack_platform.experiment.search.space import check_space, plain_changes, space
from dytrack_platform.training import state as state_files
from dytrack_platform.training import validation, worker
from dytrack_platform.training.callbacks import Callbacks
from dytrack_platform.training.distributed import DistributedContext

ACCURACY, COST = "iou", "gmacs"
"""The two objectives: mean IoU up, mean GMACs of a frame down, both at the balanced point."""

_RECORD = "experiment.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One finished trial."""

    name: str
    changes: dict[str, Any]
    """Dotted keys and values that differ from the recipe."""
    iou: float
    gmacs: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Searched:
    """A finished search."""

    trials: tuple[Trial, ...]
    failed: int
    run_id: str
    folder: Path


def search(config: ExperimentConfig, say: Callable[[str], None]) -> Searched:
    """Run the trials, or those that are missing from a search that was killed.

    Raises:
        ConfigurationError: The search space holds an invalid model.
        TrainingError: No trial finished.
    """
    check_space(config)
    config = with_absolute_paths(config)
    worker.check(config)
    name = f"{config.name}-search"
    location = f"{config.train.storage}/{name}"
    record = files.read_json(f"{location}/{_RECORD}") or {"run_id": None}
    if record["run_id"] is not None and not tracking.exists(record["run_id"]):
        record["run_id"] = None
    with (
        tracking.run(name, run_id=record["run_id"], kind="search") as run,
        session.ray_session(dashboard=False),
    ):
        files.write_json(f"{location}/{_RECORD}", {"run_id": run.run_id})
        run.parameters(flatten(to_dict(config)))
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        results = _tuner(config, location, say).fit()
        trials = _finished(results)
        if not trials:
            errors = [str(error).strip().splitlines()[-1] for error in results.errors]
            raise TrainingError(f"no trial finished: {errors[0] if errors else 'none was started'}")
        for trial in trials:
            _log_trial(trial, parent=run.run_id)
    return Searched(
        trials=tuple(trials),
        failed=len(results.errors),
        run_id=run.run_id,
        folder=Path(location),
    )


def _tuner(config: ExperimentConfig, location: str, say: Callable[[str], None]) -> Tuner:
    trainable = ray.tune.with_resources(
        ray.tune.with_parameters(_trial, recipe=to_dict(config)),
        {"CPU": config.train.cpus_per_worker, "GPU": 1 if config.train.gpu else 0},
    )
    if Tuner.can_restore(location):
        say(f"continuing the search in {location}")
        return Tuner.restore(location, trainable, resume_errored=True)
    folder, _, name = location.rpartition("/")
    # Two goals without a weight between them: NSGA-II keeps a population spread along the front.
    sampler = optuna.samplers.NSGAIISampler(
        population_size=max(2, config.search.trials // 2), seed=config.search.seed
    )
    return Tuner(
        trainable,
        param_space=space(config),
        tune_config=TuneConfig(
            num_samples=config.search.trials,
            max_concurrent_trials=config.search.max_concurrent,
            search_alg=OptunaSearch(metric=[ACCURACY, COST], mode=["max", "min"], sampler=sampler),
            reuse_actors=True,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=folder,
            verbose=0,
            failure_config=FailureConfig(max_failures=config.train.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )


def _trial(changes: dict[str, Any], recipe: dict[str, Any]) -> None:
    """Train one configuration in this process and report both objectives."""
    config = resolve(recipe, {**plain_changes(changes), "train.workers": 1})
    pairs = config.search.pairs_per_epoch or config.data.pairs_per_epoch
    shorter = {"train.epochs": config.search.epochs, "data.pairs_per_epoch": pairs}
    # Shorter than the recipe: a search ranks configurations, and takes it that short trainings rank
    # them as long ones do.
    config = resolve(to_dict(config), shorter)
    torch.set_num_threads(max(1, int(config.train.cpus_per_worker)))
    context = DistributedContext(device=torch.device("cuda" if config.train.gpu else "cpu"))
    # Only the scores count: a trial is short and starts again rather than resumes.
    state = worker.train(config, Callbacks(), context)
    module = state_files.trained(state, config)
    predicted, true = worker.validation_scores(config, module, context.device)
    points = {point.name: point for point in validation.operating_points(predicted)}
    point = points.get("balanced", points["accurate"])
    costs = torch.tensor(exit_gmacs(state.module.network))
    ray.tune.report(balanced_objectives(point, predicted, true, costs))


def balanced_objectives(
    point: OperatingPoint, predicted: torch.Tensor, true: torch.Tensor, gmacs: torch.Tensor
) -> dict[str, float]:
    """Return mean IoU and mean cost of an operating point on scored pairs.

    Args:
        point: Thresholds.
        predicted: (E, N) predicted IoU.
        true: (E, N) true IoU.
        gmacs: (E, 1) or (E,) cost of a stop at each exit.
    """
    exits = exits_taken(predicted.T.double().numpy(), point.thresholds)
    taken = torch.from_numpy(exits)
    columns = torch.arange(predicted.shape[1])
    return {
        ACCURACY: float(true[taken, columns].mean()),
        COST: float(gmacs.flatten()[taken].mean()),
    }


def _finished(results: ResultGrid) -> list[Trial]:
    trials = []
    for index in range(len(results)):
        result = results[index]
        metrics = result.metrics or {}
        if result.error is None and ACCURACY in metrics:
            trials.append(
                Trial(
                    name=f"trial-{index:03d}",
                    changes=plain_changes(dict(result.config or {})),
                    iou=float(metrics[ACCURACY]),
                    gmacs=float(metrics[COST]),
                )
            )
    return trials


def _log_trial(trial: Trial, parent: str) -> None:
    """Give a trial its own run below the search's."""
    if tracking.has_child(parent, trial.name):
        return
    with tracking.run(trial.name, parent=parent, kind="trial") as run:
        run.parameters(trial.changes)
        run.metrics({ACCURACY: trial.iou, COST: trial.gmacs}, step=0)

"""What a search would do, foretold without a trial, a worker or a file."""

from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from dytrack_model import checkpoint
from dytrack_platform.config import ExperimentConfig, resolve, to_dict
from dytrack_platform.experiment.search import space as spaces
from dytrack_platform.experiment.search.request import Request
from dytrack_platform.experiment.search.trials import supernet
from dytrack_platform.experiment.search.trials.record import SearchRecord
from dytrack_platform.experiment.search.trials.trial import shortened
from dytrack_platform.training.cost import TrainingCost, training_cost


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchCost:
    """What :func:`search_cost` foretells."""

    folder: str
    """Folder or URL that the search would write to."""
    mode: str
    """full, supernet or post-hoc."""
    trials: int
    """Trainings in all."""
    ended: int
    """Of them, those that the folder's record has already."""
    at_a_time: int
    """Trials at the same time."""
    placements: int
    """Sets of exits that may be chosen."""
    settings: int
    """Threshold settings that are tried for each placement and tracker."""
    members: int
    """Most members that are run again in closed loop."""
    steps: int
    """Optimiser steps that are left, if none is stopped early."""
    pairs: int
    """Training pairs that are left, likewise."""
    petaflops: float
    """10^15 floating point operations that are left, likewise; at the full depth of the recipe's
    own model, while a trial may change the model."""
    disk_bytes: int
    """Checkpoints of all trials, likewise; trackers that the front does not need are removed."""
    seconds: float | None
    """Left at the pace of the trials that ended in this folder; None where none has: how fast this
    machine trains is not known before."""


def search_cost(request: Request, record: SearchRecord, model: Path | None) -> SearchCost:
    """Count what a search comes to.

    Args:
        request: What is asked for.
        record: Of the search's folder; empty where there is none.
        model: The tracker of mode post-hoc.

    Raises:
        ConfigurationError: There is no placement to choose.
    """
    config = request.config
    search = config.search
    trainings, chosen = _trainings(request, model)
    over = [trial for trial in record.trials if trial.status != "running"]
    left = trainings[len(over) :]
    pace = [trial.seconds["all"] for trial in over if "all" in trial.seconds]
    seconds = None
    if pace or not left:
        rounds = ceil(len(left) / search.max_concurrent)
        seconds = rounds * sum(pace) / len(pace) if left else 0.0
    return SearchCost(
        folder=request.location,
        mode=request.mode,
        trials=len(trainings),
        ended=len(over),
        at_a_time=min(search.max_concurrent, max(len(trainings), 1)),
        placements=chosen,
        settings=search.thresholds,
        members=search.members if request.source is not None else 0,
        steps=sum(one.steps for one in left),
        pairs=sum(one.pairs for one in left),
        petaflops=sum(one.petaflops for one in left),
        disk_bytes=sum(one.disk_bytes for one in trainings),
        seconds=seconds,
    )


def _trainings(request: Request, model: Path | None) -> tuple[list[TrainingCost], int]:
    """Return the cost of each training in turn, and how many placements there are to choose."""
    config = request.config
    if model is not None:
        own = checkpoint.read_config(model)
        of_tracker = resolve({**to_dict(config), "model": own.to_dict()})
        return [], len(spaces.placements(of_tracker, own.exits))
    if request.mode == "supernet":
        whole = _cost(config, supernet.training(config))
        tuned = _cost(config, {"train.epochs": config.search.finetune_epochs})
        count = len(supernet.candidates(config)[1])
        return [whole, *[tuned] * min(config.search.finetuned, count)], count
    count = len(spaces.Space(config).values_of(spaces.EXITS)) or 1
    return [_cost(config, {})] * config.search.trials, count


def _cost(config: ExperimentConfig, changes: dict[str, Any]) -> TrainingCost:
    return training_cost(shortened(to_dict(config), changes))

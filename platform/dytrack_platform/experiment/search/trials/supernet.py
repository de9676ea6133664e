"""Mode supernet: one training with every candidate exit; placements inherit its weights.

Blocks are shared exactly by all placements, so that inheriting is milder here than where whole
architectures share weights. What can differ is recycling, which is why placements are drawn while
the supernet trains (``train.sampled_placements``).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from dytrack_model import checkpoint
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import OperatingPoint
from dytrack_model.pretrained.placement import inherit
from dytrack_platform.config import ExperimentConfig, to_dict
from dytrack_platform.experiment.search.points import threshold_front as solving
from dytrack_platform.experiment.search.points.exit_cache import ExitCache, from_pairs
from dytrack_platform.experiment.search.points.latency import costs_of
from dytrack_platform.experiment.search.points.rerun import record
from dytrack_platform.experiment.search.points.threshold_front import Placement, Point
from dytrack_platform.experiment.search.space import EXITS, placements
from dytrack_platform.experiment.search.trials.trial import judged_by
from dytrack_platform.storage import files
from dytrack_platform.training import memory, worker
from dytrack_platform.training.objective import TrainModule


@dataclass(frozen=True, kw_only=True, slots=True)
class Inherited:
    """A placement with the supernet's weights."""

    exits: Placement
    points: tuple[Point, ...]
    hypervolume: float


def candidates(config: ExperimentConfig) -> tuple[Placement, list[Placement]]:
    """Return the supernet's exits and the placements among them.

    Raises:
        ConfigurationError: There is no placement.
    """
    found = placements(config, tuple(range(1, config.model.depth + 1)))
    return tuple(sorted({depth for exits in found for depth in exits})), found


def training(config: ExperimentConfig) -> dict[str, Any]:
    """Return the changes that make a recipe the supernet's: all exits, the whole training."""
    exits, _ = candidates(config)
    recycles = config.model.recycling != "none"
    return {
        EXITS: list(exits),
        "train.epochs": config.train.epochs,
        "train.sampled_placements": int(recycles and len(exits) > 2),
    }


def score(
    config: ExperimentConfig,
    network: DyTrackNetwork,
    chosen: Sequence[Placement],
    reference: tuple[float, ...],
    device: torch.device,
) -> list[Inherited]:
    """Say what each placement is worth with inherited weights, on the held-out data."""
    config = judged_by(to_dict(config), network.config)
    found = []
    for exits, cache in zip(chosen, _caches(config, network, chosen, device), strict=True):
        costs = costs_of(inherit(network, exits))
        solved = solving.solve(cache, [exits], costs, config.search, reference)
        found.append(Inherited(exits=exits, points=solved.points, hypervolume=solved.hypervolume))
    return found


def _caches(
    config: ExperimentConfig,
    network: DyTrackNetwork,
    chosen: Sequence[Placement],
    device: torch.device,
) -> list[ExitCache]:
    """Return what each placement's exits say; on pairs the blocks run once for all of them."""
    module = TrainModule(config.model, config.loss, config.distillation)
    if config.data.resident_validation:
        found = []
        for exits in chosen:
            module.network = inherit(network, exits)
            found.append(record(*memory.followed(config, module.to(device), device)))
        return found
    module.network = network
    outputs, names = worker.placement_outputs(config, module.to(device), device, chosen)
    return [
        from_pairs(exits, predicted, iou, names)
        for exits, (predicted, iou) in zip(chosen, outputs, strict=True)
    ]


def best(
    inherited: Sequence[Inherited], config: ExperimentConfig, reference: Sequence[float]
) -> list[Placement]:
    """Return the placements worth training on: those that cover most together, first of all.

    Of equal ones those with the larger hypervolume of their own.
    """
    taken = _covering(inherited, config, reference, sum(len(one.points) for one in inherited))
    own = {one.exits: one.hypervolume for one in inherited}
    counted = sorted(set(taken), key=lambda exits: (-taken.count(exits), -own[exits], exits))
    return counted[: config.search.finetuned]


def worth(
    inherited: Sequence[Inherited], config: ExperimentConfig, reference: Sequence[float]
) -> set[Placement]:
    """Return the placements that members of a front could have without being trained on.

    There are ``search.members`` at most, and only for these a tracker is written.
    """
    return set(_covering(inherited, config, reference, config.search.members))


def _covering(
    inherited: Sequence[Inherited], config: ExperimentConfig, reference: Sequence[float], most: int
) -> list[Placement]:
    """Return the placements of the points that cover most together, once for each of them."""
    search = config.search
    points = [(p, one) for one in inherited for p in one.points if solving.keeps(p.values, search)]
    values = [point.values for point, _ in points]
    chosen = solving.spread(values, search.objectives, reference, most)
    return [points[k][1].exits for k in chosen]


def keep(network: DyTrackNetwork, exits: Placement, location: str) -> str:
    """Write a placement with inherited weights as a tracker; returns its folder or URL.

    Raises:
        StorageError: It cannot be written.
    """
    target = f"{location}/inherited/{'-'.join(map(str, exits))}"
    with TemporaryDirectory(prefix="dytrack-") as name:
        point = OperatingPoint(name="accurate", thresholds=(math.inf,) * (len(exits) - 1))
        checkpoint.save(Path(name) / "tracker", inherit(network, exits), [point])
        return files.put_folder(Path(name) / "tracker", target)

"""What a search may change, and what it draws values from."""

from typing import Any

from dytrack_platform.config import ExperimentConfig, resolve, to_dict
from dytrack_platform.experiment.cluster import session  # noqa: F401  (sets Ray's environment first)

import ray.tune  # isort: skip


def space(config: ExperimentConfig) -> dict[str, Any]:
    """Return the dotted keys to change and what to draw them from."""
    search = config.search
    placements = search.exits or (config.model.exits,)
    low, high = search.distillation
    return {
        # Optuna stores plain values only: a placement travels as text.
        "model.exits": ray.tune.choice(["-".join(map(str, exits)) for exits in placements]),
        "model.recycling": ray.tune.choice(list(search.recycling)),
        "distillation.feature": ray.tune.loguniform(low, high),
    }


def check_space(config: ExperimentConfig) -> None:
    """Validate every placement and schema before anything starts.

    Raises:
        ConfigurationError: One of them is not a valid model.
    """
    for exits in config.search.exits:
        resolve(to_dict(config), {"model.exits": exits})
    for schema in config.search.recycling:
        resolve(to_dict(config), {"model.recycling": schema})
    for weight in config.search.distillation:
        resolve(to_dict(config), {"distillation.feature": weight})


def plain_changes(drawn: dict[str, Any]) -> dict[str, Any]:
    """Turn what the sampler drew into values of the recipe: ``2-6-12`` is an exit placement."""
    exits = [int(depth) for depth in str(drawn["model.exits"]).split("-")]
    return {**drawn, "model.exits": exits}

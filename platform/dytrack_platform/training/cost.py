"""What a training costs, foretold from its recipe alone."""

from dataclasses import dataclass

import torch

from dytrack_model.cost import planned_gmacs
from dytrack_model.network import DyTrackNetwork
from dytrack_platform.config.schema import ExperimentConfig

_FORWARD_AND_BACKWARD = 3
"""A backward pass costs about twice its forward pass."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingCost:
    """What :func:`training_cost` foretells."""

    parameters: int
    """Weights of the network."""
    gmacs: tuple[float, ...]
    """Of one frame that leaves at each exit."""
    steps: int
    """Optimiser steps."""
    pairs: int
    """Training pairs drawn."""
    petaflops: float
    """10^15 floating point operations, forward and backward to full depth; validation, and the
    heads of shallower exits, are left out (some per cent)."""
    disk_bytes: int
    """Checkpoints that are kept: weights, two moments of AdamW, the average where there is one."""


def training_cost(config: ExperimentConfig) -> TrainingCost:
    """Count without making a weight.

    Args:
        config: The recipe.
    """
    with torch.device("meta"):
        parameters = sum(one.numel() for one in DyTrackNetwork(config.model).parameters())
    steps = config.train.epochs * max(1, config.data.pairs_per_epoch // config.train.batch_size)
    pairs = steps * config.train.batch_size
    gmacs = planned_gmacs(config.model)
    copies = 3 + (config.train.ema > 0)
    return TrainingCost(
        parameters=parameters,
        gmacs=gmacs,
        steps=steps,
        pairs=pairs,
        petaflops=pairs * gmacs[-1] * 2 * _FORWARD_AND_BACKWARD / 1e6,
        disk_bytes=4 * parameters * copies * config.train.keep_checkpoints,
    )

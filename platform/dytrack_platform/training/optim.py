"""AdamW with a rate for the backbone and one for the rest, and the learning rate's schedule."""

import math

import torch
from torch import nn

from dytrack_platform.config import TrainConfig


def optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Build AdamW over a module that has a ``network.backbone``.

    Norms, biases, tokens and positions are not decayed. Each group keeps its rate under
    ``base_lr``, which :func:`set_rate` multiplies.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        in_backbone = ".backbone." in f".{name}"
        decayed = parameter.ndim >= 2 and not name.endswith(("token", "position", "type"))
        groups.setdefault((in_backbone, decayed), []).append(parameter)
    described = []
    for (in_backbone, decayed), parameters in sorted(groups.items(), key=lambda item: item[0]):
        rate = config.backbone_lr if in_backbone else config.head_lr
        described.append(
            {
                "params": parameters,
                "lr": rate,
                "base_lr": rate,
                "weight_decay": config.weight_decay if decayed else 0.0,
            }
        )
    return torch.optim.AdamW(described, fused=True)


def rate_factor(config: TrainConfig, progress: float) -> float:
    """Give the factor on both learning rates at ``progress`` in [0, 1] of training."""
    if progress < config.warmup:
        # Never zero: the first step of a schedule should move.
        return max(progress / config.warmup, 0.01)
    if config.schedule == "step":
        return 0.1 if progress >= config.drop_at else 1.0
    span = 1.0 - config.warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - config.warmup) / span)) if span else 1.0


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Put the schedule's factor on every group."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor

"""AdamW with a rate for the backbone and one for the rest, and the learning rate's schedule."""

import math

import torch
from torch import Tensor, nn

from dytrack_platform.config import TrainConfig
from dytrack_platform.training.distributed import whole

_BACKBONE, _HEADS = "backbone", "heads"


def optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Build fused AdamW over the parameters of a module with a ``network.backbone`` that train.

    Norms, biases, tokens and positions are not decayed. Each group keeps its rate under
    ``base_lr``, which :func:`set_rate` multiplies, and says in ``part`` what it holds.
    """
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        # Decay pulls towards zero, which is a sensible prior for a matrix, but not for a norm's
        # gain or for what marks a token or a position.
        decayed = parameter.ndim >= 2 and not name.endswith(("token", "position", "type"))
        # The pretrained backbone moves at a tenth of the rate of what is new (OSTrack's recipe).
        groups.setdefault((_part(name), decayed), []).append(parameter)
    described = []
    for (part, decayed), parameters in sorted(groups.items(), key=_order):
        rate = config.backbone_lr if part == _BACKBONE else config.head_lr
        described.append(
            {
                "params": parameters,
                "lr": rate,
                "base_lr": rate,
                "part": part,
                "weight_decay": config.weight_decay if decayed else 0.0,
            }
        )
    return torch.optim.AdamW(described, fused=True)


def rate_factor(config: TrainConfig, progress: float) -> float:
    """Return the factor on both learning rates at ``progress`` in [0, 1] of training."""
    if progress < config.warmup:
        # Never zero: the first step of a schedule should move.
        return max(progress / config.warmup, 0.01)
    if config.schedule == "step":
        return 0.1 if progress >= config.lr_drop_at else 1.0
    span = 1.0 - config.warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - config.warmup) / span)) if span else 1.0


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Put the schedule's factor on every group."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return the learning rate of each part that trains: ``heads``, and maybe ``backbone``."""
    return {group["part"]: float(group["lr"]) for group in optimizer.param_groups}


def norms(module: nn.Module) -> dict[str, Tensor]:
    """Return the gradient's norm, () scalars: of ``all``, and of each part that trains."""
    gradients: dict[str, list[Tensor]] = {}
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            gradients.setdefault(_part(name), []).append(parameter.grad)
    parts = {
        part: whole(nn.utils.get_total_norm(tensors)).detach()
        for part, tensors in gradients.items()
    }
    # The norm of norms is the norm of all: gradients are read once.
    return {"all": torch.stack(list(parts.values())).norm(), **parts}


def clip(module: nn.Module, norm: float, limit: float) -> None:
    """Scale the gradient of norm ``norm`` down to ``limit``.

    torch's own function cannot mix spread weights with a norm that is not.
    """
    if norm <= limit or not math.isfinite(norm):
        return
    for parameter in module.parameters():
        if parameter.grad is not None:
            parameter.grad.mul_(limit / norm)


def _part(name: str) -> str:
    return _BACKBONE if ".backbone." in f".{name}" else _HEADS


def _order(item: tuple[tuple[str, bool], list[nn.Parameter]]) -> tuple[bool, bool]:
    (part, decayed), _ = item
    return part == _BACKBONE, decayed

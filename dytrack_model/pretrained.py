"""Start a tracker's backbone from published vision transformer weights in a local file.

timm, DeiT, MAE and DINOv2 name the tensors of a plain vision transformer alike
(``patch_embed.proj``, ``pos_embed``, ``blocks.0.attn.qkv`` …), so one reader serves them all.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dytrack_model.checkpoint import read_tensors
from dytrack_model.errors import CheckpointError
from dytrack_model.network import DyTrackNetwork

_PREFIXES = ("module.", "backbone.", "encoder.")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadReport:
    """What became of every tensor of a file."""

    loaded: tuple[str, ...]
    ignored: tuple[str, ...]
    """Tensors of the file that a tracker has no place for (classifier, decoder, deeper blocks)."""
    untouched: tuple[str, ...]
    """Backbone tensors that the file does not have; they keep their random start."""


@torch.no_grad()
def load_backbone(network: DyTrackNetwork, path: str | Path) -> LoadReport:
    """Copy a vision transformer's weights into the backbone; position embeddings are resampled.

    The class token becomes the start of the IoU token, and the final norm that of every exit's
    norm: both are our choice, better than random.

    Raises:
        CheckpointError: The file cannot be read, holds no vision transformer, or one whose
            width, patch or block shape differs.
    """
    tensors = {_strip(name): value for name, value in read_tensors(path).items()}
    backbone, config = network.backbone, network.config
    if "pos_embed" not in tensors or "patch_embed.proj.weight" not in tensors:
        raise CheckpointError(
            f"{path}: no vision transformer: it lacks pos_embed or patch_embed.proj.weight"
        )
    wanted = {
        name: parameter
        for name, parameter in backbone.state_dict().items()
        if name.startswith("blocks.")
    }
    wanted["patch_embed.proj.weight"] = backbone.patch_embed.weight
    if backbone.patch_embed.bias is not None:
        wanted["patch_embed.proj.bias"] = backbone.patch_embed.bias
    loaded = ["pos_embed"]
    for name, parameter in wanted.items():
        if name not in tensors:
            continue
        _copy(parameter, tensors[name], name, path)
        loaded.append(name)
    grid = _position_grid(tensors["pos_embed"], config.width, path)
    backbone.template_position.copy_(_resample(grid, config.template_map_size))
    backbone.search_position.copy_(_resample(grid, config.map_size))
    if "cls_token" in tensors:
        _copy(backbone.iou_token, tensors["cls_token"], "cls_token", path)
        loaded.append("cls_token")
    for part in ("weight", "bias"):
        if f"norm.{part}" in tensors:
            for norm in network.norms:
                _copy(getattr(norm, part), tensors[f"norm.{part}"], f"norm.{part}", path)
            loaded.append(f"norm.{part}")
    return LoadReport(
        loaded=tuple(sorted(loaded)),
        ignored=tuple(sorted(set(tensors) - set(loaded))),
        untouched=tuple(sorted(set(wanted) - set(loaded))),
    )


def _strip(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _copy(target: Tensor, source: Tensor, name: str, path: str | Path) -> None:
    if target.shape != source.shape:
        raise CheckpointError(
            f"{path}: {name} is {tuple(source.shape)}, the model needs {tuple(target.shape)}: "
            "choose the model.backbone, width, heads and patch of these weights"
        )
    target.copy_(source)


def _position_grid(positions: Tensor, width: int, path: str | Path) -> Tensor:
    """Give the square part of (1, N, D) position embeddings as (1, D, G, G)."""
    count = positions.shape[1]
    side = int(count**0.5)
    prefix = count - side * side  # class and register tokens come first
    if positions.ndim != 3 or positions.shape[2] != width or prefix > 8:
        raise CheckpointError(
            f"{path}: pos_embed of {tuple(positions.shape)} is no square grid of width {width}"
        )
    grid = positions[:, prefix:].reshape(1, side, side, width)
    return grid.permute(0, 3, 1, 2).float()


def _resample(grid: Tensor, side: int) -> Tensor:
    """Resample (1, D, G, G) positions to (1, side * side, D)."""
    resized = F.interpolate(grid, (side, side), mode="bicubic", antialias=True)
    return resized.flatten(2).transpose(1, 2)

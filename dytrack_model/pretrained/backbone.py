"""Start a tracker's backbone from published vision transformer weights in a local file.

timm, DeiT, MAE and DINOv2's own files name the tensors of a plain vision transformer nearly alike
(``patch_embed.proj``, ``pos_embed``, ``blocks.0.attn.qkv`` …); Hugging Face's names are turned
into those first (:mod:`names`), so that one reader serves them all.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.layers.patch_embed import resample_patch_embed
from torch import Tensor

from dytrack_model.errors import CheckpointError
from dytrack_model.network import DyTrackNetwork
from dytrack_model.pretrained.files import read_tensors
from dytrack_model.pretrained.names import timm_names

# A block, a layer of a stack, a level of a head; not the 1 of fc1 and norm1, which are two layers.
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)|(?<=\.conv)\d(?=_)")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadReport:
    """What became of every tensor of a file."""

    loaded: tuple[str, ...]
    ignored: tuple[str, ...]
    """Tensors of the file that a tracker has no place for (classifier, decoder, deeper blocks)."""
    untouched: tuple[str, ...]
    """Tensors of the network that the file does not have; they keep their start."""
    resampled: tuple[str, ...] = ()
    """What was changed to fit another patch or crop size, from what to what."""

    def sentences(self) -> tuple[str, ...]:
        """Return the report in words, alike names of all blocks as one."""
        told = [f"{len(self.loaded)} tensors loaded: {_grouped(self.loaded)}"]
        if self.resampled:
            told.append(f"resampled: {'; '.join(self.resampled)}")
        if self.ignored:
            told.append(f"{len(self.ignored)} ignored: {_grouped(self.ignored)}")
        if self.untouched:
            told.append(f"{len(self.untouched)} untouched: {_grouped(self.untouched)}")
        return tuple(told)


def grouped(names: tuple[str, ...]) -> dict[str, int]:
    """Count names that differ in a place only: ``blocks.*.norm1.weight`` is 12 in a ViT-B."""
    counts: dict[str, int] = {}
    for name in names:
        pattern = _NUMBER.sub("*", name)
        counts[pattern] = counts.get(pattern, 0) + 1
    return counts


@torch.no_grad()
def load_backbone(network: DyTrackNetwork, path: str | Path) -> LoadReport:
    """Copy a vision transformer's weights into the backbone.

    Position embeddings are resampled to the two grids (bicubic), and a patch embedding of another
    patch size to the network's (pseudo-inverse resize of FlexiViT, Beyer et al., CVPR 2023). The
    class token, with its position, becomes the start of the IoU token, and the final norm, scaled
    to one, that of every exit's norm: both are our choice, better than random.

    Raises:
        CheckpointError: The file cannot be read, holds no vision transformer, or one whose
            width or block shape differs.
    """
    tensors = timm_names(read_tensors(path))
    backbone, config = network.backbone, network.config
    if "pos_embed" not in tensors or "patch_embed.proj.weight" not in tensors:
        raise CheckpointError(
            f"{path}: no vision transformer: it lacks pos_embed or patch_embed.proj.weight"
        )
    wanted = {
        name: parameter
        for name, parameter in backbone.state_dict().items()
        if name.startswith(("blocks.", "norm_pre."))
    }
    wanted["patch_embed.proj.weight"] = backbone.patch_embed.weight
    if backbone.patch_embed.bias is not None:
        wanted["patch_embed.proj.bias"] = backbone.patch_embed.bias
    if backbone.registers is not None:
        wanted["reg_token"] = backbone.registers
    wanted["cls_token"] = backbone.iou_token
    resampled = _fit_patches(tensors, config.patch)
    grid = _take_positions(tensors, config.width, path)
    loaded = ["pos_embed"]
    for name, parameter in wanted.items():
        if name in tensors:
            _copy(parameter, tensors[name], name, path)
            loaded.append(name)
    for position, side in (
        (backbone.template_position, config.template_map_size),
        (backbone.search_position, config.map_size),
    ):
        position.copy_(resample_positions(grid, side))
        resampled.append(f"pos_embed from {grid.shape[-1]}x{grid.shape[-1]} to {side}x{side}")
    loaded += _take_norm(network, tensors, path)
    return LoadReport(
        loaded=tuple(sorted(loaded)),
        ignored=tuple(sorted(set(tensors) - set(loaded))),
        untouched=tuple(sorted({*wanted, "norm.weight", "norm.bias"} - set(loaded))),
        resampled=tuple(resampled),
    )


def _take_norm(network: DyTrackNetwork, tensors: dict[str, Tensor], path: str | Path) -> list[str]:
    """Start every exit's norm from the final one; returns the names that were there."""
    if "norm.weight" not in tensors:
        return []
    # Some final norms (DINOv2's) multiply by about five; what reads an exit's features starts
    # for features of about one.
    scale = tensors["norm.weight"].float().square().mean().sqrt().clamp(min=1e-6)
    names: list[str] = [name for name in ("norm.weight", "norm.bias") if name in tensors]
    for name in names:
        for norm in network.norms:
            _copy(norm.get_parameter(name[5:]), tensors[name] / scale, name, path)
    return names


def _fit_patches(tensors: dict[str, Tensor], patch: int) -> list[str]:
    """Resample a (D, 3, P, P) patch embedding to another P; return what was done."""
    weight = tensors["patch_embed.proj.weight"]
    before = weight.shape[-1]
    if weight.ndim != 4 or before == patch:
        return []
    tensors["patch_embed.proj.weight"] = resample_patch_embed(weight, [patch, patch])
    return [f"patch_embed.proj.weight from patch {before} to {patch}"]


def _copy(target: Tensor, source: Tensor, name: str, path: str | Path) -> None:
    if target.shape != source.shape:
        raise CheckpointError(
            f"{path}: {name} is {tuple(source.shape)}, the model needs {tuple(target.shape)}: "
            "choose the model.backbone, width and heads of these weights"
        )
    target.copy_(source)


def _take_positions(tensors: dict[str, Tensor], width: int, path: str | Path) -> Tensor:
    """Return the square part of (1, N, D) position embeddings as (1, D, G, G).

    What stands before the square belongs to the class and register tokens, and is added to them,
    as a plain forward does: (1, 1, D) and (1, R, D).
    """
    positions = tensors["pos_embed"]
    side = int(positions.shape[1] ** 0.5) if positions.ndim == 3 else 0
    prefix = positions.shape[1] - side * side if positions.ndim == 3 else 0
    if side == 0 or positions.shape[2] != width or prefix > 8:
        raise CheckpointError(
            f"{path}: pos_embed is {tuple(positions.shape)}, a square grid of width {width} was "
            "expected: choose the model.backbone, width and heads of these weights"
        )
    if prefix and "cls_token" in tensors:
        tensors["cls_token"] = tensors["cls_token"] + positions[:, :1]
    registers = tensors.get("reg_token")
    if registers is not None and prefix > registers.shape[1]:
        tensors["reg_token"] = registers + positions[:, prefix - registers.shape[1] : prefix]
    grid = positions[:, prefix:].reshape(1, side, side, width)
    return grid.permute(0, 3, 1, 2).float()


def resample_positions(grid: Tensor, side: int) -> Tensor:
    """Resample (1, D, G, G) positions to (1, side * side, D), bicubic."""
    resized = F.interpolate(grid, (side, side), mode="bicubic", antialias=True)
    return resized.flatten(2).transpose(1, 2)


def _grouped(names: tuple[str, ...]) -> str:
    counts = grouped(names)
    shown = [f"{name} x{count}" if count > 1 else name for name, count in counts.items()]
    return ", ".join(shown[:20]) + (f" and {len(shown) - 20} more kinds" if len(shown) > 20 else "")

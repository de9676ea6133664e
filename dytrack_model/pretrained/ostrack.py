"""Turn a published OSTrack into the start of a dynamic tracker.

Names and shapes are those of OSTrack @ 33b5e12 (``ckpt["net"]`` with the centre head). At full
depth the imported tracker computes what that network computes: the IoU token only reads, no exit
recycles another's features, and norm and head stand at the deepest exit. The shallower exits start
with the same norm and head, which were never trained on their features: train before relying on
them. Candidate elimination, which drops search tokens on the way, has no weights and is not part
of it; every token goes through every block.

Differences of form that change no result: OSTrack's three head branches are one grouped
convolution here, and the bias before each batch norm is taken off its running mean.
"""

import math
import re
from pathlib import Path

import torch
from torch import Tensor

from dytrack_model.config import Attention, ModelConfig, RecyclingSchema, require
from dytrack_model.errors import CheckpointError
from dytrack_model.exits.recycling import Cascade
from dytrack_model.network import DyTrackNetwork
from dytrack_model.pretrained.backbone import LoadReport
from dytrack_model.pretrained.files import read_tensors

_BRANCHES = {"ctr": "score", "offset": "offset", "size": "size"}
"""OSTrack's branches in the order of our groups, and the name of our last convolution."""
_LEVELS = (1, 2, 3, 4)
_BLOCK = re.compile(r"^backbone\.blocks\.(\d+)\.")
_COUNTER = re.compile(r"^box_head\.conv[1-4]_(ctr|offset|size)\.1\.num_batches_tracked$")
_CLASS_TOKEN = "backbone.cls_token"
_TEMPLATE_SEGMENT = "backbone.template_segment_pos_embed"
_SEARCH_SEGMENT = "backbone.search_segment_pos_embed"
_OPTIONAL = (_CLASS_TOKEN, _TEMPLATE_SEGMENT, _SEARCH_SEGMENT)
"""Tensors of (1, 1, D): the class token is in every file and read by none, the others in some."""
_HEAD_DIM = 64
"""Width of an attention head in every published ViT; the tensors do not tell."""
_TIMM_NAMES = {192: "vit_tiny", 384: "vit_small", 768: "vit_base", 1024: "vit_large"}


def import_tracker(
    path: str | Path,
    exits: tuple[int, ...],
    *,
    heads: int | None = None,
    search_factor: float | None = None,
    recycling: RecyclingSchema = "cascade",
    attention: Attention = "joint",
) -> tuple[DyTrackNetwork, LoadReport]:
    """Read a published tracker into a network of its size with the given exits.

    Args:
        path: The published file (``.pth.tar``), read without unpickling; or safetensors.
        exits: Blocks after which the tracker may stop; the last one must be the last block.
        heads: Attention heads; ``None`` takes the width over 64.
        search_factor: Side of the search crop over the square root of the target's area; ``None``
            takes the published 4 for a grid below 24x24 and 5 from there on.
        recycling: RecyclingSchema schema, started as identity; ``add`` cannot start so.
        attention: ``joint`` is what OSTrack computes; ``template-cached`` has to be trained first.

    Returns:
        The network in evaluation mode, and what became of each tensor.

    Raises:
        CheckpointError: The file is no OSTrack with a centre head; every fault is named.
        ConfigurationError: The exits or heads do not fit the transformer in the file.
    """
    tensors = read_tensors(path)
    config = _configuration(
        tensors,
        path,
        exits=exits,
        heads=heads,
        search_factor=search_factor,
        recycling=recycling,
        attention=attention,
    )
    network = DyTrackNetwork(config).eval()
    return network, load(network, tensors, path)


def _configuration(
    tensors: dict[str, Tensor],
    path: str | Path,
    *,
    exits: tuple[int, ...],
    heads: int | None,
    search_factor: float | None,
    recycling: RecyclingSchema,
    attention: Attention,
) -> ModelConfig:
    """Read the configuration off a published tracker's shapes."""
    _require_ostrack(tensors, path)
    width, _, patch, _ = tensors["backbone.patch_embed.proj.weight"].shape
    depth = 1 + max(int(m[1]) for m in map(_BLOCK.match, tensors) if m)
    require(
        heads is not None or width % _HEAD_DIM == 0,
        f"heads: cannot be read off a width of {width}; give the number of attention heads",
    )
    require(
        recycling != "add",
        "recycling: add always mixes some of the previous exit in, so the imported tracker would "
        "not be the published one; choose none, concat or cascade",
    )
    search_side = _side(tensors["backbone.pos_embed_x"], "backbone.pos_embed_x", path)
    template_side = _side(tensors["backbone.pos_embed_z"], "backbone.pos_embed_z", path)
    name = _TIMM_NAMES.get(width, "vit_base")
    return ModelConfig(
        variant="base",
        backbone=f"{name}_patch16_224",
        width=width,
        depth=depth,
        heads=heads or width // _HEAD_DIM,
        patch=patch,
        template_size=patch * template_side,
        search_size=patch * search_side,
        search_factor=search_factor or (5.0 if search_side >= 24 else 4.0),
        exits=exits,
        recycling=recycling,
        attention=attention,
        iou_token="read_only",
        head_width=len(tensors["box_head.conv1_ctr.0.weight"]),
        decisioner_width=width,
        matching_start=0.0,
    )


@torch.no_grad()
def load(network: DyTrackNetwork, tensors: dict[str, Tensor], path: str | Path) -> LoadReport:
    """Copy a published tracker's tensors into a network that reads its IoU token.

    Args:
        network: Takes them; its configuration must be of their size.
        tensors: (*) by their published names.
        path: Where they come from, for messages.

    Returns:
        Published names that landed, published names without a place, and names of our own that
        nothing was read into.

    Raises:
        CheckpointError: Tensors are missing or of another shape; they are named.
    """
    _require_ostrack(tensors, path)
    wanted = _published_shapes(network)
    optional = [name for name in _OPTIONAL if name in tensors]
    width = network.config.width
    faults = [f"{name} is missing" for name in sorted(set(wanted) - set(tensors))]
    for name, shape in (wanted | dict.fromkeys(optional, (1, 1, width))).items():
        if name in tensors and tensors[name].shape != shape:
            faults.append(f"{name} is {tuple(tensors[name].shape)}, the network needs {shape}")
    if faults:
        shown = "; ".join(faults[:6]) + (f"; and {len(faults) - 6} more" if len(faults) > 6 else "")
        raise CheckpointError(f"{path}: not an OSTrack of this network's size: {shown}")
    values = _own_values(network, tensors)
    own = network.state_dict()
    for name, value in values.items():
        own[name].copy_(value)
    for recycling in network.recycling:
        if isinstance(recycling, Cascade):
            for parameter in recycling.parameters():
                parameter.zero_()
    counters = [name for name in tensors if _COUNTER.match(name)]
    landed = {*wanted, *optional, *counters}
    return LoadReport(
        loaded=tuple(sorted(landed)),
        ignored=tuple(sorted(set(tensors) - landed)),
        untouched=tuple(sorted(set(own) - set(values))),
    )


def _require_ostrack(tensors: dict[str, Tensor], path: str | Path) -> None:
    if any(name.startswith("box_head.conv1_tl.") for name in tensors):
        raise CheckpointError(
            f"{path}: an OSTrack with a corner head; only the centre head can be imported"
        )
    needed = ("backbone.pos_embed_z", "backbone.pos_embed_x", "box_head.conv1_ctr.0.weight")
    missing = [name for name in needed if name not in tensors]
    patches = tensors.get("backbone.patch_embed.proj.weight")
    if patches is None or patches.ndim != 4:
        missing.append("backbone.patch_embed.proj.weight")
    if not any(map(_BLOCK.match, tensors)):
        missing.append("backbone.blocks.*")
    if missing:
        raise CheckpointError(
            f"{path}: no OSTrack checkpoint: it lacks {', '.join(missing)}; a plain vision "
            "transformer goes into train.init_from of a recipe"
        )


def _side(positions: Tensor, name: str, path: str | Path) -> int:
    """Return the side of the square grid of (1, N, D) positions."""
    count = positions.shape[1] if positions.ndim == 3 else 0
    side = math.isqrt(count)
    if side == 0 or side * side != count:
        raise CheckpointError(f"{path}: {name} of {tuple(positions.shape)} is no square grid")
    return side


def _published_shapes(network: DyTrackNetwork) -> dict[str, tuple[int, ...]]:
    """Return every tensor that OSTrack's forward pass reads, by its published name."""
    config, width = network.config, network.config.width
    shapes: dict[str, tuple[int, ...]] = {
        f"backbone.{name}": tuple(value.shape)
        for name, value in network.backbone.state_dict().items()
        if name.startswith("blocks.")
    }
    shapes["backbone.patch_embed.proj.weight"] = (width, 3, config.patch, config.patch)
    shapes["backbone.patch_embed.proj.bias"] = (width,)
    shapes["backbone.pos_embed_z"] = (1, config.template_map_size**2, width)
    shapes["backbone.pos_embed_x"] = (1, config.map_size**2, width)
    shapes["backbone.norm.weight"] = shapes["backbone.norm.bias"] = (width,)
    for branch, outputs in zip(_BRANCHES, (1, 2, 2), strict=True):
        before = width
        for level in _LEVELS:
            channels = config.head_width >> (level - 1)
            layer = f"box_head.conv{level}_{branch}"
            shapes[f"{layer}.0.weight"] = (channels, before, 3, 3)
            shapes[f"{layer}.0.bias"] = (channels,)
            for part in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{layer}.1.{part}"] = (channels,)
            before = channels
        shapes[f"box_head.conv5_{branch}.weight"] = (outputs, before, 1, 1)
        shapes[f"box_head.conv5_{branch}.bias"] = (outputs,)
    return shapes


def _own_values(network: DyTrackNetwork, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the published values under the network's own names."""
    own = network.state_dict()
    values = {name: tensors[name] for name in own if name.startswith("backbone.blocks.")}
    values["backbone.patch_embed.weight"] = tensors["backbone.patch_embed.proj.weight"]
    values["backbone.patch_embed.bias"] = tensors["backbone.patch_embed.proj.bias"]
    values["backbone.template_position"] = tensors["backbone.pos_embed_z"]
    values["backbone.search_position"] = tensors["backbone.pos_embed_x"] + tensors.get(
        _SEARCH_SEGMENT, torch.zeros(())
    )
    values["backbone.template_type"] = tensors.get(
        _TEMPLATE_SEGMENT, torch.zeros_like(own["backbone.template_type"])
    )
    if _CLASS_TOKEN in tensors:
        values["backbone.iou_token"] = tensors[_CLASS_TOKEN]
    head = _own_head(tensors)
    for index in range(network.exit_count):
        for part in ("weight", "bias"):
            values[f"norms.{index}.{part}"] = tensors[f"backbone.norm.{part}"]
        values |= {f"heads.{index}.{name}": value for name, value in head.items()}
    return values


def _own_head(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the three branches as one head with grouped convolutions."""

    def joined(layer: str) -> Tensor:
        return torch.cat([tensors[f"box_head.{layer.format(b)}"] for b in _BRANCHES])

    values: dict[str, Tensor] = {}
    for level in _LEVELS:
        # Our trunk repeats convolution, batch norm, ReLU; OSTrack's "0" and "1" are the first two.
        convolution, norm = f"trunk.{3 * level - 3}", f"trunk.{3 * level - 2}"
        layer = f"conv{level}_{{}}"
        values[f"{convolution}.weight"] = joined(f"{layer}.0.weight")
        for part in ("weight", "bias", "running_var"):
            values[f"{norm}.{part}"] = joined(f"{layer}.1.{part}")
        # norm(x + bias) subtracts (mean - bias) from x.
        bias, mean = joined(f"{layer}.0.bias"), joined(f"{layer}.1.running_mean")
        values[f"{norm}.running_mean"] = mean - bias
        counter = f"box_head.conv{level}_ctr.1.num_batches_tracked"
        if counter in tensors:
            values[f"{norm}.num_batches_tracked"] = tensors[counter]
    for branch, name in _BRANCHES.items():
        for part in ("weight", "bias"):
            values[f"{name}.{part}"] = tensors[f"box_head.conv5_{branch}.{part}"]
    return values

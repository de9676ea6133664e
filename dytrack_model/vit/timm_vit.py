"""Plain vision transformers of timm by name: their shape, their modules, and what is none.

"Plain" is what the tracker's two kinds of attention are written for: one patch convolution and
pre-norm blocks of one attention and one perceptron (ViT, DeiT, DeiT III, MAE, DINO, DINOv2,
CLIP and SigLIP towers). Layer scale, registers, a norm before the blocks and normed queries and
keys belong to it; rotary or relative positions, parallel or post-norm blocks, windows and
hierarchies do not.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, cast

import torch
from torch import nn

from dytrack_model.config import ModelConfig
from dytrack_model.errors import ConfigurationError
from dytrack_model.vit import torchvision_import

__all__ = ["Block", "Shape", "build", "complete", "shape"]

torchvision_import.apply()
with torchvision_import.without_compiler():
    import timm
    from timm.layers.attention import Attention
    from timm.layers.patch_embed import PatchEmbed
    from timm.models.deit import VisionTransformerDistilled
    from timm.models.vision_transformer import Block, VisionTransformer


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What timm's own definition of a name says."""

    width: int
    depth: int
    heads: int
    patch: int


def build(config: ModelConfig) -> VisionTransformer:
    """Build the configured transformer with random weights.

    Raises:
        ConfigurationError: timm has no such model, or it is no plain vision transformer.
    """
    return _create(
        config.backbone,
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.heads,
        patch_size=config.patch,
        img_size=config.search_size,
    )


@cache
def shape(name: str) -> Shape:
    """Return the shape that timm defines for a name, without making its weights.

    Raises:
        ConfigurationError: timm has no such model, or it is no plain vision transformer.
    """
    with torch.device("meta"):
        vit = _create(name)
    attention = cast(Attention, vit.blocks[0].attn)
    return Shape(
        width=vit.embed_dim,
        depth=len(vit.blocks),
        heads=attention.num_heads,
        patch=vit.patch_embed.patch_size[0],
    )


def complete(preset: ModelConfig, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what naming a backbone implies: the values of a model that ``changes`` leaves out.

    Width, depth, heads and patch are those of timm's definition. The rest follows (our choice):
    exits at the preset's shares of the depth, a head of a third of the width, and crops of the
    preset's number of patches, or of fewer where patches are larger, so that neither tokens nor
    pixels grow: patch 14 gives 112 and 224 where patch 16 has 128 and 256.

    Args:
        preset: The values that the backbone does not decide.
        changes: The given keys of the model, ``backbone`` among them.

    Raises:
        ConfigurationError: The backbone is no plain vision transformer of timm.
    """
    own = shape(str(changes["backbone"]))
    # A given value that is no size at all is left for the schema to refuse.
    sizes = {**asdict(own), **{k: v for k, v in changes.items() if isinstance(v, int) and v > 0}}
    width, depth, patch = sizes["width"], sizes["depth"], sizes["patch"]
    shares = [round(exit_at * depth / preset.depth) for exit_at in preset.exits[:-1]]
    implied = {
        **asdict(own),
        "exits": sorted({max(1, share) for share in shares if share < depth} | {depth}),
        "template_size": patch * _side(preset.template_size, preset.patch, patch),
        "search_size": patch * _side(preset.search_size, preset.patch, patch),
        "head_width": max(8, 8 * round(width / 24)),
        "decisioner_width": width,
    }
    return {**preset.to_dict(), **implied, **changes}


def _side(size: int, before: int, patch: int) -> int:
    """Return the side of a grid with neither more patches nor more pixels than before."""
    return max(1, min(size // before, size // patch))


def _create(name: str, **changes: Any) -> VisionTransformer:  # noqa: ANN401  (timm's own)
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        near = get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; see timm.list_models()"
        raise ConfigurationError(f"backbone: timm has no model {name!r}{hint}")
    try:
        model = timm.create_model(name, pretrained=False, num_classes=0, **changes)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise ConfigurationError(
            f"backbone: timm cannot build {name!r} as a vision transformer of this shape: {error}"
        ) from error
    fault = _fault(model)
    if fault:
        raise ConfigurationError(
            f"backbone: {name!r} is no plain vision transformer ({fault}); choose a ViT, DeiT, "
            "MAE, DINO or DINOv2 such as vit_small_patch14_dinov2"
        )
    return cast(VisionTransformer, model)


def _fault(model: nn.Module) -> str | None:
    """Say what keeps a model from being a plain vision transformer."""
    if type(model) not in (VisionTransformer, VisionTransformerDistilled):
        return f"timm builds it as {type(model).__name__}"
    vit = cast(VisionTransformer, model)
    if type(vit.patch_embed) is not PatchEmbed:
        return f"its patches come from a {type(vit.patch_embed).__name__}"
    if len(set(vit.patch_embed.patch_size)) != 1:
        return f"its patches are not square: {vit.patch_embed.patch_size}"
    for block in vit.blocks:
        attention = getattr(block, "attn", None)
        if type(block) is not Block or type(attention) is not Attention:
            return f"its blocks are {type(block).__name__} with {type(attention).__name__}"
        if getattr(attention, "gate", None) is not None:  # older timm has no gates
            return "its attention is gated"
    return None

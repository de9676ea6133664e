"""The transformer: timm blocks over [IoU token | registers | template | search] tokens.

Two kinds of attention:

``joint``
    Every token sees every token (one-stream, OSTrack).
``template-cached``
    Template tokens see themselves only, so their keys and values do not depend on the frame and
    are computed once per target; the other tokens see everything.

And two kinds of IoU token, in either attention: a ``bidirectional`` one is a token like the
others; a ``read_only`` one sees all other tokens and is seen by none, so that the others are what
they would be without it. Registers are there where the named transformer has them (DINOv2 with
registers).

Dimensions: B batch, R registers, Z template tokens, X search tokens, D width, L blocks, A heads,
C = D / A.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dytrack_model.config import ModelConfig
from dytrack_model.vit import timm_vit
from dytrack_model.vit.timm_vit import Block

if TYPE_CHECKING:
    from timm.layers.attention import Attention


class TrackerBlock(Block):
    """A timm block whose forward knows our kinds of attention.

    It is called as a module and not reached into, so that what hangs on modules works in every
    kind: sharded weights (FSDP), activation checkpointing, compiled blocks.
    """

    def forward(
        self, x: Tensor, template_state: Tensor | None = None, read_only: bool = False
    ) -> Tensor:
        """Run the block on (B, N, D) tokens.

        Args:
            x: The tokens, the IoU token first.
            template_state: (2, B, A, Z, C) keys and values of template tokens that all see.
            read_only: Nobody sees the IoU token.
        """
        if template_state is None and not read_only:
            return super().forward(x)
        queries, keys, values = _project(self, x)
        if read_only:
            # Nobody, itself included, looks at the IoU token: the other tokens' sums are those of
            # a transformer that has none.
            keys, values = keys[:, :, 1:], values[:, :, 1:]
        if template_state is not None:
            keys = torch.cat([template_state[0], keys], dim=2)
            values = torch.cat([template_state[1], values], dim=2)
        return _attend(self, x, queries, keys, values)

    def template(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Run the block on template tokens (B, Z, D) alone.

        Returns:
            The tokens, and the block's part of the template state, (2, B, A, Z, C).
        """
        queries, keys, values = _project(self, tokens)
        return _attend(self, tokens, queries, keys, values), torch.stack([keys, values])


class Backbone(nn.Module):
    """Patch embedding, positions, the learned IoU token, registers and the blocks.

    A *template state* is what the tracker keeps of a target between frames: (B, Z, D) embedded
    tokens with joint attention, (L, 2, B, A, Z, C) keys and values with cached attention.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        vit = timm_vit.build(config)
        self.patch_embed: nn.Conv2d = vit.patch_embed.proj
        self.norm_pre: nn.Module = vit.norm_pre
        for block in vit.blocks:
            # The same modules under the same names, with a forward that knows our attention.
            block.__class__ = TrackerBlock
        self.blocks = nn.ModuleList(vit.blocks)
        self.registers: nn.Parameter | None = vit.reg_token
        self.iou_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.template_position = nn.Parameter(_sincos(config.template_map_size, config.width))
        self._whole_side = config.map_size
        self.search_position = nn.Parameter(_sincos(config.map_size, config.width))
        # Distinguishes template from search tokens, which otherwise share pixels and positions.
        self.template_type = nn.Parameter(torch.zeros(1, 1, config.width))
        # Added to it where the target's box covers a template patch, in proportion.
        self.target_type: nn.Parameter | None = None
        if config.token_type == "target":
            self.target_type = nn.Parameter(torch.zeros(1, 1, config.width))
            nn.init.trunc_normal_(self.target_type, std=0.02)
        nn.init.trunc_normal_(self.iou_token, std=0.02)
        nn.init.trunc_normal_(self.template_type, std=0.02)
        if config.matching_start > 0:
            _match_queries_and_keys(self.blocks, config.matching_start)

    @property
    def cached(self) -> bool:
        """Whether template tokens see only themselves."""
        return self.config.attention == "template-cached"

    @property
    def register_count(self) -> int:
        """Number of register tokens, R."""
        return 0 if self.registers is None else len(self.registers[0])

    def embed_template(self, template: Tensor, target_share: Tensor | None = None) -> Tensor:
        """Turn a normalised template (B, 3, T, T) into the template state.

        Args:
            template: The crops.
            target_share: (B, Z) share of each patch that the target's box covers; needed where
                ``token_type`` is ``target``.
        """
        embedded = self._patches(template) + self.template_position + self.template_type
        if self.target_type is not None:
            assert target_share is not None  # the network computes it from the target's box
            embedded = embedded + target_share[..., None] * self.target_type
        tokens: Tensor = self.norm_pre(embedded)
        if not self.cached:
            return tokens
        states = []
        for block in self.blocks:
            tokens, state = cast(TrackerBlock, block).template(tokens)
            states.append(state)
        return torch.stack(states)

    def embed_search(self, search: Tensor, template_state: Tensor) -> Tensor:
        """Turn a normalised search region (B, 3, S, S) into the tokens of the first block.

        Returns:
            (B, 1 + R + Z + X, D) with joint attention, (B, 1 + R + X, D) with cached attention.
        """
        tokens = self.norm_pre(self._patches(search) + self._middle_positions())
        first: Tensor = self.iou_token
        if self.registers is not None:
            first = torch.cat([first, self.registers], dim=1)
        first = self.norm_pre(first).expand(tokens.shape[0], -1, -1)
        if self.cached:
            return torch.cat([first, tokens], dim=1)
        return torch.cat([first, template_state, tokens], dim=1)

    def _middle_positions(self) -> Tensor:
        """Return (1, X, D) positions of the middle of the grid: all, but in the narrow region."""
        whole, side = self._whole_side, self.config.map_size
        if side == whole:
            return self.search_position
        first = (whole - side) // 2
        grid = self.search_position.reshape(1, whole, whole, -1)
        middle = grid[:, first : first + side, first : first + side]
        return middle.reshape(1, side * side, -1)

    @contextmanager
    def spelled_out(self) -> Iterator[None]:
        """Let attention be two products and a softmax meanwhile, in place of one fused call.

        A graph writer would translate the fused call into the same with a scale on both sides;
        OpenVINO takes 5 % longer for that.
        """
        layers = [cast("Attention", cast("Block", block).attn) for block in self.blocks]
        before = [layer.fused_attn for layer in layers]
        try:
            for layer in layers:
                layer.fused_attn = False  # type: ignore[misc]  # final for TorchScript only
            yield
        finally:
            for layer, fused in zip(layers, before, strict=True):
                layer.fused_attn = fused  # type: ignore[misc]

    def run_blocks(
        self, tokens: Tensor, template_state: Tensor | None, first: int, last: int
    ) -> Tensor:
        """Run blocks ``first`` (counted from 0) up to but without ``last`` on (B, N, D) tokens.

        Args:
            tokens: What :meth:`embed_search` gave, or an earlier call.
            template_state: With cached attention these blocks' part of the template state,
                (last - first, 2, B, A, Z, C); otherwise it is not read.
            first: First block.
            last: The block after the last one.
        """
        read_only = self.config.iou_token == "read_only"
        for index in range(first, last):
            seen = None
            if self.cached:
                assert template_state is not None  # cached attention has a template state
                seen = template_state[index - first]
            tokens = self.blocks[index](tokens, seen, read_only)
        return tokens

    def _patches(self, images: Tensor) -> Tensor:
        return self.patch_embed(images).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


def target_share(boxes_cxcywh: Tensor, map_size: int) -> Tensor:
    """Return the share of each cell of a square grid that a box covers.

    Args:
        boxes_cxcywh: (B, 4) in [0, 1] of the crop.
        map_size: Side of the grid.

    Returns:
        (B, map_size * map_size) in [0, 1], row by row.
    """
    edges = torch.arange(map_size, device=boxes_cxcywh.device, dtype=boxes_cxcywh.dtype)
    covered = []
    for axis in (1, 0):  # rows, then columns
        low = (boxes_cxcywh[:, axis] - 0.5 * boxes_cxcywh[:, axis + 2])[:, None] * map_size
        high = (boxes_cxcywh[:, axis] + 0.5 * boxes_cxcywh[:, axis + 2])[:, None] * map_size
        covered.append((torch.minimum(high, edges + 1) - torch.maximum(low, edges)).clamp(0, 1))
    return (covered[0][:, :, None] * covered[1][:, None, :]).flatten(1)


def _project(block: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values (B, A, N, C) of a timm block for (B, N, D) tokens."""
    block = cast("Block", block)
    attention = cast("Attention", block.attn)
    batch, count, width = tokens.shape
    heads = attention.num_heads
    mixed = attention.qkv(block.norm1(tokens)).reshape(batch, count, 3, heads, width // heads)
    queries, keys, values = mixed.permute(2, 0, 3, 1, 4).unbind(0)
    return attention.q_norm(queries), attention.k_norm(keys), values


def _attend(
    block: nn.Module, tokens: Tensor, queries: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """Finish a timm block on (B, N, D) tokens with given queries, keys and values."""
    block = cast("Block", block)
    attention = cast("Attention", block.attn)
    if attention.fused_attn:
        mixed = F.scaled_dot_product_attention(queries, keys, values)
    else:
        mixed = (queries * attention.scale @ keys.transpose(-2, -1)).softmax(dim=-1) @ values
    mixed = mixed.transpose(1, 2).reshape(tokens.shape)
    tokens = tokens + block.ls1(attention.proj(attention.norm(mixed)))
    return tokens + block.ls2(block.mlp(block.norm2(tokens)))  # type: ignore[no-any-return]


def _sincos(side: int, width: int) -> Tensor:
    """Return (1, side * side, width) sine and cosine positions (the start of MAE and ViT-S+).

    Positions count from the middle of the grid in patches, so that template and search, which
    are both centred on the target, agree on where the middle is.
    """
    quarter = (width + 3) // 4
    frequency = 1.0 / (10_000 ** (torch.arange(quarter) / quarter))
    axis = torch.arange(side) - (side - 1) / 2
    angle = axis[:, None] * frequency[None]
    waves = torch.cat([angle.sin(), angle.cos()], dim=1)
    rows = waves[:, None].expand(side, side, -1)
    columns = waves[None].expand(side, side, -1)
    return torch.cat([columns, rows], dim=-1).reshape(1, side * side, -1)[..., :width] * 0.5


@torch.no_grad()
def _match_queries_and_keys(blocks: nn.ModuleList, strength: float) -> None:
    """Start every head with nearly the same random projection for queries and for keys.

    Attention then begins as similarity of content, so template and matching search tokens find
    each other from the first step; from an independent start a small transformer needs an order
    of magnitude more pairs before it tracks at all. Source: the observation of Trockman and
    Kolter (Mimetic Initialization, ICML 2023) that trained queries and keys look alike; the
    simplification is our choice.
    """
    for block in blocks:
        attention = cast("Attention", cast("Block", block).attn)
        weight = attention.qkv.weight
        width = weight.shape[1]
        shared = torch.randn(width, width) * (strength / width**0.5)
        weight[:width] = shared + 0.02 * torch.randn(width, width)
        weight[width : 2 * width] = shared + 0.02 * torch.randn(width, width)

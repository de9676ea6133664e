"""The dynamic tracker's network: one transformer, an exit after each configured block.

Notable here:

- [IoU token | template | search] tokens through timm blocks (:mod:`backbone`);
- at each exit a norm, an explicit comparison with the target (:mod:`matching`) where asked for,
  feature recycling from the exit before (:mod:`recycling`), a decisioner
  that predicts the exit's IoU from a token (:mod:`decisioner`) and a centre head (:mod:`heads`),
  which runs only where the tracker stops;
- every step is a method, so that training (all exits at once), tracking (exit by exit) and
  export (one graph for each stage) run the same code.

Dimensions: B batch, Z template tokens, X search tokens, D width, H W map, E exits.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from dytrack_model.backbone import Backbone, target_share
from dytrack_model.config import ModelConfig
from dytrack_model.exits.decisioner import Decisioner, ScoreMapSummary
from dytrack_model.exits.heads import CentreHead, HeadMaps, probability, read_boxes
from dytrack_model.exits.matching import TemplateMatching
from dytrack_model.exits.recycling import ExitFeatures, build

_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
"""ImageNet's mean and deviation of red, green and blue in [0, 1]."""


class ExitOutput(NamedTuple):
    """What one exit says of a batch of search regions."""

    maps: HeadMaps
    """Dense maps of the box head."""
    boxes_cxcywh: Tensor
    """(B, 4) box at the peak, in [0, 1] of the search crop."""
    predicted_iou: Tensor
    """(B,) the decisioner's estimate of that box's IoU, in [0, 1]."""
    features: Tensor
    """(B, X, D) search features after the exit's norm, before recycling (for distillation)."""
    coarse_score: Tensor | None
    """(B, H, W) probabilities of the centre in the decisioner's coarse map, if it has one."""


class DyTrackNetwork(nn.Module):
    """Backbone, and per exit: norm, recycling, decisioner, head. It keeps no state of a target."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        width, exits = config.width, range(len(config.exits))
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in exits)
        matching = exits if config.template_matching else range(0)
        self.matching = nn.ModuleList(TemplateMatching(width) for _ in matching)
        self.recycling = nn.ModuleList(build(config.recycling, width) for _ in exits[1:])
        summarised = exits if config.decisioner != "token" else range(0)
        self.score_summaries = nn.ModuleList(
            ScoreMapSummary(width, config.map_size) for _ in summarised
        )
        if config.decisioner == "map" and config.iou_token == "read_only":
            # Nothing reads the token; a parallel wrapper would wait for its gradient.
            self.backbone.iou_token.requires_grad_(False)
        self.decisioners = nn.ModuleList(Decisioner(width, config.decisioner_width) for _ in exits)
        self.heads = nn.ModuleList(
            CentreHead(width, config.head_width, config.map_size) for _ in exits
        )
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer(
            "deviation", torch.tensor(_DEVIATION).view(1, 3, 1, 1), persistent=False
        )

    @property
    def exit_count(self) -> int:
        """Number of exits, E."""
        return len(self.config.exits)

    def embed_template(self, template: Tensor, share: Tensor | None = None) -> Tensor:
        """Turn a template crop (B, 3, T, T), uint8 RGB, into the template state.

        ``share`` (B, Z) is what :meth:`target_share` returns, for a network that reads it.
        """
        return self.backbone.embed_template(self._normalise(template), share)

    def target_share(self, boxes_cxcywh: Tensor) -> Tensor:
        """Return (B, Z): how much of each template patch boxes in [0, 1] of the crop cover."""
        return target_share(boxes_cxcywh, self.config.template_map_size)

    def embed_search(self, search: Tensor, template_state: Tensor) -> Tensor:
        """Turn a search crop (B, 3, S, S), uint8 RGB, into the tokens of the first block."""
        return self.backbone.embed_search(self._normalise(search), template_state)

    def advance(self, exit_index: int, tokens: Tensor, template_state: Tensor) -> Tensor:
        """Run the blocks between the previous exit and this one on (B, N, D) tokens."""
        first = self.config.exits[exit_index - 1] if exit_index else 0
        last = self.config.exits[exit_index]
        state = template_state[first:last] if self.backbone.cached else None
        return self.backbone.run_blocks(tokens, state, first, last)

    def read(self, exit_index: int, tokens: Tensor, share: Tensor | None = None) -> ExitFeatures:
        """Return an exit's own view of (B, N, D) tokens: search features and IoU token.

        ``share`` (B, Z) is what :meth:`target_share` returns, where there is explicit matching.
        """
        search_tokens = self.config.map_size**2
        if self.matching:
            assert share is not None  # who builds such a network passes it on
            first = 1 + self.backbone.register_count
            normed = self.norms[exit_index](tokens)
            features = self.matching[exit_index](
                normed[:, -search_tokens:], normed[:, first:-search_tokens], share
            )
        else:
            # Without matching nobody looks at the template's tokens any more.
            normed = self.norms[exit_index](
                torch.cat([tokens[:, :1], tokens[:, -search_tokens:]], 1)
            )
            features = normed[:, 1:]
        token = normed[:, 0]
        if self.score_summaries:
            summary = self.score_summaries[exit_index](features)
            token = summary if self.config.decisioner == "map" else token + summary
        return ExitFeatures(features, token)

    def recycle(
        self, exit_index: int, own: ExitFeatures, previous: ExitFeatures | None
    ) -> ExitFeatures:
        """Combine an exit's own features, (B, X, D) and (B, D), with the previous exit's."""
        if previous is None:
            return own
        return self.recycling[exit_index - 1](own, previous)  # type: ignore[no-any-return]

    def decide(self, exit_index: int, exit_features: ExitFeatures) -> Tensor:
        """Predict the IoU of the box that this exit would give: (B,) in [0, 1]."""
        return self.decisioners[exit_index](exit_features.iou_token)  # type: ignore[no-any-return]

    def locate(self, exit_index: int, exit_features: ExitFeatures) -> HeadMaps:
        """Run the box head of this exit on its (B, X, D) features."""
        return self.heads[exit_index](exit_features.features)  # type: ignore[no-any-return]

    def forward(
        self, template: Tensor, search: Tensor, template_boxes_cxcywh: Tensor | None = None
    ) -> list[ExitOutput]:
        """Run every exit, for training and measuring.

        Args:
            template: (B, 3, T, T) uint8 RGB.
            search: (B, 3, S, S) uint8 RGB.
            template_boxes_cxcywh: (B, 4) the target in [0, 1] of the template crop, for a network
                that reads it.

        Returns:
            One output for each exit, shallow to deep.
        """
        every = tuple(range(self.exit_count))
        return self.placed(template, search, (every,), template_boxes_cxcywh)[0]

    def placed(
        self,
        template: Tensor,
        search: Tensor,
        placements: Sequence[Sequence[int]],
        template_boxes_cxcywh: Tensor | None = None,
    ) -> list[list[ExitOutput]]:
        """Run placements of exits over the same blocks.

        Args:
            template: (B, 3, T, T) uint8 RGB.
            search: (B, 3, S, S) uint8 RGB.
            placements: For each the rising indices of its exits. What an exit recycles is what
                the exit before it in the placement passes on.
            template_boxes_cxcywh: (B, 4) as for :meth:`forward`.

        Returns:
            For each placement one output for each of its exits, shallow to deep.
        """
        # Embed both crops; the template's part does not depend on the frame.
        share = None
        if self.config.reads_target_box:
            assert template_boxes_cxcywh is not None  # every source of pairs gives it
            share = self.target_share(template_boxes_cxcywh)
        template_state = self.embed_template(template, share)
        tokens = self.embed_search(search, template_state)
        # Go to full depth once; every exit looks at the tokens as they pass.
        views: list[ExitFeatures] = []
        for exit_index in range(self.exit_count):
            tokens = self.advance(exit_index, tokens, template_state)
            views.append(self.read(exit_index, tokens, share))
        return [self._outputs(views, placement) for placement in placements]

    def _outputs(self, views: Sequence[ExitFeatures], placement: Sequence[int]) -> list[ExitOutput]:
        outputs: list[ExitOutput] = []
        exit_features: ExitFeatures | None = None
        for exit_index in placement:
            own = views[exit_index]
            # Add what the previous exit passed on.
            exit_features = self.recycle(exit_index, own, exit_features)
            # Predict the box, and how good it is.
            maps = self.locate(exit_index, exit_features)
            predicted_iou = self.decide(exit_index, exit_features)
            coarse_score = self._coarse_score(exit_index, own.features)
            outputs.append(
                ExitOutput(maps, read_boxes(maps), predicted_iou, own.features, coarse_score)
            )
        return outputs

    def _coarse_score(self, exit_index: int, features: Tensor) -> Tensor | None:
        """Return the decisioner's coarse map once more, as its loss wants it."""
        if not self.score_summaries:
            return None
        logits: Tensor = self.score_summaries[exit_index].logits(features)  # type: ignore[operator]
        side = self.config.map_size
        return probability(logits).reshape(-1, side, side)

    def _normalise(self, images: Tensor) -> Tensor:
        return (images.to(self.mean.dtype) / 255.0 - self.mean) / self.deviation


def sharing_copy(network: DyTrackNetwork) -> DyTrackNetwork:
    """Return a copy of a network and of all its modules, with the same weights in the same memory.

    A deep copy whose memo knows the tensors does the same in eight times the time, as it goes
    through everything that modules hold. Here what is neither a module nor one of its tables, such
    as a configuration, is the original's own: replace it, do not change it.
    """
    twins: dict[int, nn.Module] = {}  # a module that stands in two places still does

    def twin(module: nn.Module) -> nn.Module:
        if id(module) not in twins:
            made = twins[id(module)] = module.__new__(type(module))
            for name, value in vars(module).items():
                # Tables of weights, modules and hooks become its own; what is in them does not.
                made.__dict__[name] = value.copy() if isinstance(value, dict | set) else value
            for name, child in module._modules.items():
                made.__dict__["_modules"][name] = None if child is None else twin(child)
        return twins[id(module)]

    return cast("DyTrackNetwork", twin(network))

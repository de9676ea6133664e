"""Explicit matching: what an exit's search features have in common with the target's own.

The blocks already let template and search tokens see each other; a shallow exit has had few of
them. This adds, at every exit, the comparison that Siamese trackers are made of. The formula is
our choice:

    target  = mean of the template tokens, weighted by the share of each that the box covers
    matched = search + linear(search * target) + cosine(search, target) * direction

Dimensions: B batch, Z template tokens, X search tokens, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TemplateMatching(nn.Module):
    """Adds a comparison with the target to search features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.product = nn.Linear(width, width)
        self.direction = nn.Parameter(torch.zeros(width))
        # Starts as if it were not there: products of features have heavy tails, and the heads
        # behind it would first have to learn to bear them.
        nn.init.zeros_(self.product.weight)
        nn.init.zeros_(self.product.bias)

    def macs(self, search_tokens: int, template_tokens: int) -> int:
        """Count multiply-accumulates for one frame."""
        width = self.direction.numel()
        return search_tokens * (self.product.weight.numel() + 2 * width) + template_tokens * width

    def forward(self, search: Tensor, template: Tensor, target_share: Tensor) -> Tensor:
        """Compare (B, X, D) search with (B, Z, D) template features.

        Args:
            search: An exit's normed search features.
            template: Its normed template features.
            target_share: (B, Z) share of each template patch that the target's box covers.

        Returns:
            (B, X, D) search features that know what they have in common with the target.
        """
        weights = target_share / target_share.sum(dim=1, keepdim=True).clamp(min=1e-6)
        target = (weights[..., None] * template).sum(dim=1, keepdim=True)
        similarity = F.normalize(search, dim=-1) * F.normalize(target, dim=-1)
        alike = similarity.sum(dim=-1, keepdim=True)
        return search + self.product(search * target) + alike * self.direction  # type: ignore[no-any-return]

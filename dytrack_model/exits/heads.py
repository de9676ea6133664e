"""The box head: a centre head after OSTrack, its width scaled to the backbone.

Three branches (centre, offset, size), each four 3x3 convolutions with batch norm and ReLU that
halve the channels, then a 1x1 convolution. The branches run as one grouped convolution per
level: the same weights and products as three separate branches, with a third of the calls.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dytrack_model.config import require

_SMALLEST = 1e-4
"""Scores and sizes are clamped to [1e-4, 1 - 1e-4], so that the focal loss stays finite."""


class HeadMaps(NamedTuple):
    """Dense output of a head on its H x W map; sizes and centres in [0, 1] of the search crop."""

    score: Tensor
    """(B, H, W) probability that the target's centre lies in this cell."""
    size: Tensor
    """(B, 2, H, W) width and height of the box."""
    offset: Tensor
    """(B, 2, H, W) position of the centre inside its cell, in cells."""


class CentreHead(nn.Module):
    """Maps search features (B, X, D) to :class:`HeadMaps`."""

    def __init__(self, width: int, head_width: int, map_size: int) -> None:
        super().__init__()
        self.map_size = map_size
        self.size_scale = 1.0
        """Side of the crop that sizes were learned in shares of, over that of the crop read."""
        widths = (head_width, head_width // 2, head_width // 4, head_width // 8)
        levels: list[nn.Module] = []
        before = width
        for level, channels in enumerate(widths):
            # The first level reads the shared features; later ones keep the branches apart.
            groups = 1 if level == 0 else 3
            levels += [
                nn.Conv2d(before, 3 * channels, 3, padding=1, groups=groups, bias=False),
                nn.BatchNorm2d(3 * channels),
                nn.ReLU(inplace=True),
            ]
            before = 3 * channels
        self.trunk = nn.Sequential(*levels)
        self.score = nn.Conv2d(widths[-1], 1, 1)
        self.offset = nn.Conv2d(widths[-1], 2, 1)
        self.size = nn.Conv2d(widths[-1], 2, 1)
        # Most cells hold no centre: start near a probability of 0.1 (CenterNet).
        nn.init.constant_(self.score.bias, -2.19)  # type: ignore[arg-type]

    def macs(self) -> int:
        """Count multiply-accumulates for one frame."""
        convolutions = [m for m in self.modules() if isinstance(m, nn.Conv2d)]
        return self.map_size**2 * sum(c.weight.numel() for c in convolutions)

    def forward(self, features: Tensor) -> HeadMaps:
        """Read (B, X, D) search features."""
        batch, _, width = features.shape
        grid = features.transpose(1, 2).reshape(batch, width, self.map_size, self.map_size)
        score, offset, size = self.trunk(grid).chunk(3, dim=1)
        score_map = probability(self.score(score))
        size_map = probability(self.size(size))
        if self.size_scale != 1.0:
            size_map = (size_map * self.size_scale).clamp(max=1 - _SMALLEST)
        return HeadMaps(score_map[:, 0], size_map, self.offset(offset).float())


def probability(logits: Tensor) -> Tensor:
    """Squash logits, (B, C, H, W) or (B, X), into [1e-4, 1 - 1e-4].

    In float32: half precision cannot tell 1 - 1e-4 from 1.
    """
    return logits.float().sigmoid().clamp(_SMALLEST, 1 - _SMALLEST)


def read_boxes(maps: HeadMaps, window: Tensor | None = None) -> Tensor:
    """Read one box per image at the peak of the score map.

    Args:
        maps: A head's output.
        window: (H, W) weights of the cells, such as a Hann window; the peak is that of the
            product, while the box is read from the unweighted maps.

    Returns:
        (B, 4) ``cx, cy, w, h`` in [0, 1] of the search crop.
    """
    height, width = maps.score.shape[1:]
    scores = maps.score if window is None else maps.score * window
    peak = scores.flatten(1).argmax(dim=1)
    at_peak = peak[:, None, None].expand(-1, 2, 1)
    size = maps.size.flatten(2).gather(2, at_peak)[..., 0]
    offset = maps.offset.flatten(2).gather(2, at_peak)[..., 0]
    cell = torch.stack([peak % width, torch.div(peak, width, rounding_mode="floor")], dim=1)
    scale = torch.tensor([width, height], dtype=size.dtype, device=size.device)
    return torch.cat([(cell.to(size.dtype) + offset) / scale, size], dim=1)


def hann_window(size: int, strength: float) -> Tensor:
    """Return (H, W) weights: a Hann window mixed with ones."""
    require(0 <= strength <= 1, f"hann: must lie in [0, 1], got {strength}")
    # A periodic window of size + 2 without its zero ends, so that no cell is ruled out.
    ramp = torch.hann_window(size + 2, periodic=False)[1:-1]
    return (1 - strength) + strength * torch.outer(ramp, ramp)

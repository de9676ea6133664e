"""The decisioner: predicts the IoU that an exit's box would have, without computing the box.

Two kinds, ``model.decisioner``:

``token``
    The paper's: a three-layer perceptron on the learned IoU token, which gathers what it needs
    through the blocks.
``map``
    Our choice: the perceptron reads how clearly one place stands out in a coarse score map, one
    scalar product per search token (:class:`ScoreMapSummary`). Four numbers cannot tell training
    sequences apart; in short trainings neither kind ranks better (docs/LOG.md).

Dimensions: B batch, X search tokens, D width, H W map with H * W = X.
"""

import torch
from torch import Tensor, nn

_NEAR = 2
"""Cells around the peak, in each direction, that count as the same place."""
_LOWEST = -30.0
"""A logit below every real one; finite, so that half precision keeps it."""


class Decisioner(nn.Module):
    """A three-layer perceptron on the IoU token.

    Deciding costs three small products; the head (a quarter of the shallowest route's cost on a
    ViT-B) runs only at the exit that is taken.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, 1),
        )

    def macs(self) -> int:
        """Count multiply-accumulates for one frame."""
        return sum(m.weight.numel() for m in self.layers if isinstance(m, nn.Linear))

    def forward(self, iou_token: Tensor) -> Tensor:
        """Return the predicted IoU in [0, 1], (B,), from the exit's IoU token (B, D)."""
        return torch.sigmoid(self.layers(iou_token).float())[:, 0]


class ScoreMapSummary(nn.Module):
    """A coarse score map of an exit, and an IoU token made of how clear its peak is.

    The map is trained towards the true centre like a head's. It reads features without a
    gradient, so predicting a box's IoU does not compete with finding the box.
    """

    def __init__(self, width: int, map_size: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)
        self.embed = nn.Linear(4, width)
        # Most cells hold no centre: start near a probability of 0.1, as the heads do.
        nn.init.constant_(self.score.bias, -2.19)
        self.register_buffer("elsewhere", _apart(map_size), persistent=False)

    elsewhere: Tensor

    def read_maps_of(self, map_size: int) -> None:
        """Read maps of another size from now on."""
        self.elsewhere = _apart(map_size).to(self.elsewhere.device)

    def macs(self, tokens: int) -> int:
        """Count multiply-accumulates for one frame of ``tokens`` search tokens."""
        return tokens * self.score.weight.numel() + self.embed.weight.numel()

    def logits(self, features: Tensor) -> Tensor:
        """Score (B, X, D) search features: (B, X) logits of the target's centre."""
        return self.score(features.detach())[..., 0].float()  # type: ignore[no-any-return]

    def forward(self, features: Tensor) -> Tensor:
        """Describe the map of (B, X, D) search features as an IoU token (B, D)."""
        return self.embed(self.describe(features))  # type: ignore[no-any-return]

    def describe(self, features: Tensor) -> Tensor:
        """Return what (B, X, D) search features say of the target's place.

        Returns:
            (B, 4): the highest logit of the map, its lead over the best other place, the sum of
            all evidence (log-sum-exp), and the entropy of the map as a distribution.
        """
        logits = self.logits(features).detach()
        shares = logits.softmax(dim=1)
        peak = logits.amax(dim=1)
        # The best score of another place: a distractor, or nothing.
        rival = logits.masked_fill(~self.elsewhere[logits.argmax(dim=1)], _LOWEST).amax(dim=1)
        spread = -(shares * shares.clamp(min=1e-9).log()).sum(dim=1)
        return torch.stack([peak, peak - rival, logits.logsumexp(dim=1), spread], dim=1)


def _apart(map_size: int) -> Tensor:
    """Return (X, X): whether two cells of a square map are more than a peak's width apart."""
    axis = torch.arange(map_size)
    rows, columns = axis.repeat_interleave(map_size), axis.repeat(map_size)
    apart = [(a[:, None] - a[None]).abs() > _NEAR for a in (rows, columns)]
    return apart[0] | apart[1]

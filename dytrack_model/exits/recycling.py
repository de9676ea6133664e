"""Feature recycling: how an exit uses again what the exit before it computed.

The paper compares four schemas without naming them in public text; these four and their
formulas are our choice. Each takes the exit's own features and those that the previous exit
passed on, and gives the features that this exit's decisioner and head read, which are also
what it passes on.

=======  ==============================  ======================
schema   search features                 IoU token
=======  ==============================  ======================
none     own                             own
add      own + sigmoid(gate) * previous  own
concat   linear([own, previous])         own
cascade  own + linear(previous)          own + linear(previous)
=======  ==============================  ======================
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dytrack_model.config import RecyclingSchema


class ExitFeatures(NamedTuple):
    """What one exit passes to the next: (B, X, D) search features and the (B, D) IoU token."""

    features: Tensor
    iou_token: Tensor


class Recycling(nn.Module):
    """Combine an exit's own features with the previous exit's; the first exit has none."""

    def macs(self, tokens: int) -> int:
        """Count multiply-accumulates for one frame of ``tokens`` search tokens."""
        raise NotImplementedError

    def forward(self, own: ExitFeatures, previous: ExitFeatures) -> ExitFeatures:
        """Return the (B, X, D) features and (B, D) token that the decisioner and head read."""
        raise NotImplementedError


class NoRecycling(Recycling):
    """Every exit reads its own features only."""

    def macs(self, tokens: int) -> int:
        """Nothing is computed."""
        return 0

    def forward(self, own: ExitFeatures, previous: ExitFeatures) -> ExitFeatures:
        """Ignore ``previous``; shapes (B, X, D) and (B, D)."""
        return own


class Add(Recycling):
    """Add the previous features, each channel weighted by a learned gate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # sigmoid(-2) = 0.12: the exit starts near its own features.
        self.gate = nn.Parameter(torch.full((width,), -2.0))

    def macs(self, tokens: int) -> int:
        """One multiply-accumulate for each channel of each token."""
        return tokens * self.gate.numel()

    def forward(self, own: ExitFeatures, previous: ExitFeatures) -> ExitFeatures:
        """Mix features (B, X, D); the token (B, D) stays the exit's own."""
        mixed = own.features + self.gate.sigmoid() * previous.features
        return ExitFeatures(mixed, own.iou_token)


class Concat(Recycling):
    """Concatenate with the previous features and project back to the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(2 * width, width)
        # Starts as the exit's own features.
        with torch.no_grad():
            self.project.weight.zero_()
            self.project.weight[:, :width] = torch.eye(width)
            self.project.bias.zero_()

    def macs(self, tokens: int) -> int:
        """One linear layer over every search token."""
        return tokens * self.project.weight.numel()

    def forward(self, own: ExitFeatures, previous: ExitFeatures) -> ExitFeatures:
        """Mix features (B, X, D); the token (B, D) stays the exit's own."""
        both = torch.cat([own.features, previous.features], dim=-1)
        return ExitFeatures(self.project(both), own.iou_token)


class Cascade(Recycling):
    """Add projections of the previous features and of the previous IoU token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = nn.Linear(width, width)
        self.iou_token = nn.Linear(width, width)
        for layer in (self.features, self.iou_token):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def macs(self, tokens: int) -> int:
        """One linear layer over every search token and one over the IoU token."""
        return tokens * self.features.weight.numel() + self.iou_token.weight.numel()

    def forward(self, own: ExitFeatures, previous: ExitFeatures) -> ExitFeatures:
        """Mix features (B, X, D) and tokens (B, D)."""
        return ExitFeatures(
            own.features + self.features(previous.features),
            own.iou_token + self.iou_token(previous.iou_token),
        )


def build(schema: RecyclingSchema, width: int) -> Recycling:
    """Make the module of one schema for tokens of ``width`` channels."""
    if schema == "none":
        return NoRecycling()
    return {"add": Add, "concat": Concat, "cascade": Cascade}[schema](width)

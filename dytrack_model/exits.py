"""The decisioner: predicts the IoU that an exit's box would have, without computing the box."""

import torch
from torch import Tensor, nn


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
        """Give the predicted IoU in [0, 1], (B,), from the exit's IoU token (B, D)."""
        return torch.sigmoid(self.layers(iou_token).float())[:, 0]

"""Learn from another tracker besides the truth: a narrow network from a wider one.

The teacher sees the same pairs, resampled to its own crops. Every exit of the student is pulled
towards the teacher's deepest exit: its features, normalised over channels, weighted towards the
target and resampled to the student's grid, and its box. Our choice.

Dimensions: B batch, X search tokens of the student, D its width, T the teacher's width.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dytrack_model import checkpoint
from dytrack_model.boxes import cxcywh_to_xyxy, iou_and_giou
from dytrack_model.config import DistillationConfig
from dytrack_model.distillation import target_mask
from dytrack_model.network import DyTrackNetwork, ExitOutput


class Teacher:
    """A trained network that is asked, never changed; no module, so that no optimiser sees it."""

    def __init__(self, folder: str) -> None:
        self._network = checkpoint.load(folder).network.requires_grad_(False)

    @property
    def width(self) -> int:
        """Channels of its tokens, T."""
        return self._network.config.width

    @torch.no_grad()
    def answer(self, template: Tensor, search: Tensor, boxes_cxcywh: Tensor | None) -> ExitOutput:
        """Return its deepest exit's output.

        Args:
            template: (B, 3, S, S) uint8 of any size.
            search: (B, 3, S, S) uint8 of any size.
            boxes_cxcywh: (B, 4) the target in [0, 1] of the template crop.
        """
        network: DyTrackNetwork = self._network.to(template.device)
        config = network.config
        crops = [
            F.interpolate(crop.float(), (size, size), mode="bilinear", antialias=True)
            for crop, size in ((template, config.template_size), (search, config.search_size))
        ]
        outputs: list[ExitOutput] = network(crops[0], crops[1], boxes_cxcywh)
        return outputs[-1]


def teaching_loss(
    config: DistillationConfig,
    projections: nn.ModuleList,
    outputs: Sequence[ExitOutput],
    taught: ExitOutput,
    boxes_cxcywh: Tensor,
    absent: int,
) -> Tensor:
    """Return the distance of every exit to the teacher.

    Args:
        config: Weights, and the mask's shape.
        projections: From D to T channels, one for each exit.
        outputs: The student's.
        taught: The teacher's deepest.
        boxes_cxcywh: (B, 4) true boxes in [0, 1] of the search crop.
        absent: Pairs at the start that show the student another template; they teach nothing.
    """
    side = round(outputs[0].features.shape[1] ** 0.5)
    batch, tokens, width = taught.features.shape
    grid = taught.features.float().transpose(1, 2).reshape(batch, width, *[round(tokens**0.5)] * 2)
    resized = F.interpolate(grid, (side, side), mode="bilinear", antialias=True)
    target = F.layer_norm(resized.flatten(2).transpose(1, 2), (width,))[absent:]
    weights = target_mask(boxes_cxcywh[absent:], side, config.mask, config.outside)
    corners = cxcywh_to_xyxy(taught.boxes_cxcywh[absent:])
    loss = target.new_zeros(())
    for projection, output in zip(projections, outputs, strict=True):
        projected = F.layer_norm(projection(output.features[absent:]).float(), (width,))
        distance = (projected - target).square().mean(dim=-1)
        loss = loss + config.teacher_feature * (weights * distance).sum(dim=1).mean()
        own = cxcywh_to_xyxy(output.boxes_cxcywh[absent:])
        _, giou = iou_and_giou(own, corners)
        apart = 2 * (1 - giou).mean() + 5 * (own - corners).abs().mean()
        loss = loss + config.teacher_prediction * apart
    return loss

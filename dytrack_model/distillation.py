"""Target-aware self-distillation: shallow exits learn to see the target as the deepest one does.

Training only. The paper states the idea (early stages mimic the deep model's representation,
weighted towards the target) but no formula in public text; what follows is our choice, with the
weights in :class:`DistillationConfig`.

Dimensions: B batch, X search tokens, D width, H W map with H * W = X.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dytrack_model.boxes import cxcywh_to_xyxy, iou_and_giou
from dytrack_model.config import DistillationConfig, MaskShape


def target_mask(boxes_cxcywh: Tensor, map_size: int, shape: MaskShape, outside: float) -> Tensor:
    """Weigh search tokens by how much of the target they show.

    Args:
        boxes_cxcywh: (B, 4) true boxes in [0, 1] of the search crop.
        map_size: Side of the token grid, H = W.
        shape: ``box``: 1 inside the box. ``gaussian``: falls from 1 at the centre with a sigma
            of half the box.
        outside: The weight far from the target, above 0.

    Returns:
        (B, X) weights that sum to 1 for each image.
    """
    axis = (torch.arange(map_size, device=boxes_cxcywh.device) + 0.5) / map_size
    # Half sizes are at least half a cell, so that a tiny target still marks its own token.
    half = (0.5 * boxes_cxcywh[:, 2:]).clamp(min=0.5 / map_size)
    dx = (axis[None, None, :] - boxes_cxcywh[:, 0, None, None]) / half[:, 0, None, None]
    dy = (axis[None, :, None] - boxes_cxcywh[:, 1, None, None]) / half[:, 1, None, None]
    if shape == "box":
        inside = ((dx.abs() <= 1) & (dy.abs() <= 1)).to(boxes_cxcywh.dtype)
    else:
        inside = torch.exp(-0.5 * (dx**2 + dy**2))
    weights = (outside + (1 - outside) * inside).flatten(1)
    return weights / weights.sum(dim=1, keepdim=True)


class Distiller(nn.Module):
    """Losses that pull every exit towards the deepest one; not part of a saved tracker."""

    def __init__(self, config: DistillationConfig, width: int, exits: int) -> None:
        super().__init__()
        self.config = config
        students = range(exits - 1) if config.feature > 0 else range(0)
        self.projections = nn.ModuleList(nn.Linear(width, width) for _ in students)

    def strength(self, progress: float) -> float:
        """Return the factor in [0, 1] that the schedule puts on both losses at ``progress``."""
        begun = progress - self.config.start
        if begun < 0:
            return 0.0
        return min(1.0, begun / self.config.ramp) if self.config.ramp > 0 else 1.0

    def feature_loss(self, features: Sequence[Tensor], boxes_cxcywh: Tensor) -> Tensor:
        """Return the masked distance of projected (B, X, D) features to the deepest exit's.

        Both sides are normalised over channels first, so that the distance does not depend on
        their scale. The deepest exit's features carry no gradient.
        """
        map_size = round(features[-1].shape[1] ** 0.5)
        teacher = F.layer_norm(features[-1].detach().float(), features[-1].shape[-1:])
        weights = target_mask(boxes_cxcywh, map_size, self.config.mask, self.config.outside)
        loss = teacher.new_zeros(())
        for projection, student in zip(self.projections, features, strict=False):
            projected = F.layer_norm(projection(student).float(), teacher.shape[-1:])
            distance = (projected - teacher).square().mean(dim=-1)
            loss = loss + (weights * distance).sum(dim=1).mean()
        return loss

    def prediction_loss(self, boxes_cxcywh: Sequence[Tensor]) -> Tensor:
        """Return 2 (1 - GIoU) + 5 L1 of each exit's (B, 4) boxes to the deepest exit's."""
        teacher = cxcywh_to_xyxy(boxes_cxcywh[-1].detach())
        loss = teacher.new_zeros(())
        for student_cxcywh in boxes_cxcywh[:-1]:
            student = cxcywh_to_xyxy(student_cxcywh)
            _, giou = iou_and_giou(student, teacher)
            loss = loss + 2 * (1 - giou).mean() + 5 * (student - teacher).abs().mean()
        return loss

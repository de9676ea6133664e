"""Box and score losses of one exit (OSTrack's recipe); the objective sums them over exits.

Dimensions: B batch, H W map.
"""

import torch
from torch import Tensor

from dytrack_model.boxes import cxcywh_to_xyxy, iou_and_giou

_MIN_OVERLAP = 0.7
"""A centre may be wrong by as much as keeps this IoU with the true box (CenterNet)."""


def centre_targets(boxes_cxcywh: Tensor, map_size: int) -> Tensor:
    """Draw CenterNet's Gaussian around the true centre of each box.

    Args:
        boxes_cxcywh: (B, 4) in [0, 1] of the search crop.
        map_size: Side of the map, H = W.

    Returns:
        (B, H, W), 1 in the centre's cell, sigma = (2 r + 1) / 6 cells. Empty of ones where the
        centre lies outside the crop.
    """
    cells = boxes_cxcywh * map_size
    radius = _gaussian_radius(cells[:, 2].ceil(), cells[:, 3].ceil()).floor().clamp(min=0)
    sigma = (2 * radius + 1) / 6
    inside = ((cells[:, :2] >= 0) & (cells[:, :2] < map_size)).all(dim=1)
    centre = cells[:, :2].floor()
    axis = torch.arange(map_size, device=boxes_cxcywh.device, dtype=boxes_cxcywh.dtype)
    dx = axis[None, None, :] - centre[:, 0, None, None]
    dy = axis[None, :, None] - centre[:, 1, None, None]
    gaussian = torch.exp(-(dx**2 + dy**2) / (2 * sigma[:, None, None] ** 2))
    near = (dx.abs() <= radius[:, None, None]) & (dy.abs() <= radius[:, None, None])
    return gaussian * near * inside[:, None, None]


def focal_loss(score: Tensor, target: Tensor) -> Tensor:
    """Return CenterNet's focal loss (alpha 2, beta 4) of (B, H, W) scores, over all centres."""
    positive = target.eq(1).to(score.dtype)
    negative = (1 - target) ** 4 * (1 - positive)
    loss = -(torch.log(score) * (1 - score) ** 2 * positive).sum()
    loss = loss - (torch.log1p(-score) * score**2 * negative).sum()
    return loss / positive.sum().clamp(min=1)


def box_losses(predicted_cxcywh: Tensor, true_cxcywh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compare boxes (B, 4) in [0, 1] of the crop.

    Returns:
        Mean 1 - GIoU, mean L1 distance of corners, and the (B,) IoU without gradient.
    """
    predicted, true = cxcywh_to_xyxy(predicted_cxcywh), cxcywh_to_xyxy(true_cxcywh)
    iou, giou = iou_and_giou(predicted, true)
    return (1 - giou).mean(), (predicted - true).abs().mean(), iou.detach()


def decisioner_loss(predicted_iou: Tensor, true_iou: Tensor) -> Tensor:
    """Return the mean squared error of (B,) predicted IoUs; the target carries no gradient."""
    return (predicted_iou - true_iou.detach()).square().mean()


def _gaussian_radius(width: Tensor, height: Tensor) -> Tensor:
    """Return the largest shift in cells that keeps the IoU; CenterNet's three cases.

    The published formulas divide by 2 where the quadratic formula divides by 2a; they are kept,
    because the published recipes were trained with them.
    """
    overlap = _MIN_OVERLAP
    total, area = width + height, width * height

    def _root(a: float, b: Tensor, c: Tensor) -> Tensor:
        return (b + torch.sqrt((b**2 - 4 * a * c).clamp(min=0))) / 2

    both_inside = _root(1.0, total, area * (1 - overlap) / (1 + overlap))
    one_inside = _root(4.0, 2 * total, (1 - overlap) * area)
    none_inside = _root(4 * overlap, -2 * overlap * total, (overlap - 1) * area)
    return torch.minimum(torch.minimum(both_inside, one_inside), none_inside)

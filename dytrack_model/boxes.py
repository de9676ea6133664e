"""Box formats and overlaps of tensors: the one place that converts.

``cxcywh``: centre and size. ``xyxy``: opposite corners. Units are the caller's, usually [0, 1]
of the search crop.
"""

import torch
from torch import Tensor


def cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """Convert (N, 4) centre and size to (N, 4) corners."""
    centre, size = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:]
    return torch.cat([centre - 0.5 * size, centre + 0.5 * size], dim=-1)


def iou_and_giou(first_xyxy: Tensor, second_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Return IoU in [0, 1] and generalised IoU in [-1, 1] of pairs of boxes.

    Args:
        first_xyxy: (N, 4) corners.
        second_xyxy: (N, 4) corners.

    Returns:
        (N,) IoU and (N,) GIoU. Source: Rezatofighi et al., CVPR 2019, algorithm 1.
    """
    low = torch.maximum(first_xyxy[..., :2], second_xyxy[..., :2])
    high = torch.minimum(first_xyxy[..., 2:], second_xyxy[..., 2:])
    inter = (high - low).clamp(min=0).prod(dim=-1)
    area_first = (first_xyxy[..., 2:] - first_xyxy[..., :2]).clamp(min=0).prod(dim=-1)
    area_second = (second_xyxy[..., 2:] - second_xyxy[..., :2]).clamp(min=0).prod(dim=-1)
    # Two boxes without area have no union; their overlap is 0, not NaN.
    union = (area_first + area_second - inter).clamp(min=1e-9)
    hull_low = torch.minimum(first_xyxy[..., :2], second_xyxy[..., :2])
    hull_high = torch.maximum(first_xyxy[..., 2:], second_xyxy[..., 2:])
    hull = (hull_high - hull_low).clamp(min=0).prod(dim=-1).clamp(min=1e-9)
    iou = inter / union
    return iou, iou - (hull - union) / hull

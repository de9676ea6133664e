"""Validation on pairs."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dytrack_model.losses import box_losses
from dytrack_model.network import DyTrackNetwork
from dytrack_platform.confidence import calibrate
from dytrack_platform.training.batches import Batch
from dytrack_platform.training.objective import TrainModule

Scores = tuple[Tensor, Tensor]
"""(E, N) predicted and (E, N) true IoU of every exit on N pairs."""


@torch.inference_mode()
def score(module: TrainModule, batches: Iterable[Batch], device: torch.device) -> Scores:
    """Run every exit on validation pairs: (E, N) predicted and true IoU."""
    was_training = module.training
    module.eval()
    predicted, true = [], []
    for batch in batches:
        tensors = (batch.template, batch.search, batch.boxes_cxcywh)
        in_template = batch.template_boxes_cxcywh.to(device)
        losses = module(*(t.to(device) for t in tensors), 1.0, in_template)
        predicted.append(losses.predicted_iou.cpu())
        true.append(losses.true_iou.cpu())
    module.train(was_training)
    return torch.cat(predicted, dim=1), torch.cat(true, dim=1)


@torch.inference_mode()
def score_placements(
    network: DyTrackNetwork,
    batches: Iterable[Batch],
    device: torch.device,
    placements: Sequence[Sequence[int]],
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Run placements of exits on validation pairs.

    Args:
        network: The network with all exits; it is put into evaluation mode.
        batches: Pairs.
        device: Where the network is.
        placements: Rising indices of each placement's exits.

    Returns:
        For each placement (K, N) predicted and true IoU.
    """
    network.eval()
    parts: list[list[tuple[Tensor, Tensor]]] = [[] for _ in placements]
    for batch in batches:
        boxes = batch.boxes_cxcywh.to(device)
        found = network.placed(
            batch.template.to(device),
            batch.search.to(device),
            placements,
            batch.template_boxes_cxcywh.to(device),
        )
        for part, outputs in zip(parts, found, strict=True):
            true = [box_losses(output.boxes_cxcywh, boxes)[2] for output in outputs]
            said = [output.predicted_iou for output in outputs]
            part.append((torch.stack(said).cpu(), torch.stack(true).cpu()))
    return [
        (
            torch.cat([said for said, _ in part], dim=1).double().numpy(),
            torch.cat([true for _, true in part], dim=1).double().numpy(),
        )
        for part in parts
    ]


def summarise(exits: tuple[int, ...], scores: Scores) -> dict[str, float]:
    """Say how good each exit is, and how well it knows, from (E, N) scores.

    Returns:
        For each exit its mean ``iou``; of the predicted IoU the mean error ``iou_error``, the
        calibration error ``iou_calibration``, and ``auroc``: the chance that a pair with an IoU
        above 0.5 is scored above one without (left out where all pairs are of one kind).
    """
    summary: dict[str, float] = {}
    for depth, predicted, true in zip(exits, *scores, strict=True):
        found = calibrate(predicted.double().numpy(), true.double().numpy())
        summary[f"exit{depth}/iou"] = float(true.mean())
        summary[f"exit{depth}/iou_error"] = float((predicted - true).abs().mean())
        summary[f"exit{depth}/iou_calibration"] = found.expected_error
        if not math.isnan(found.auroc):
            summary[f"exit{depth}/auroc"] = found.auroc
    return summary

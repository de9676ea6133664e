"""Validation on pairs, and the operating points that follow from it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dytrack_model.depth_value import AMBIGUITY, AUDIT_EVERY, ValueRule, ambiguity_weights
from dytrack_model.losses import box_losses
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import OperatingPoint
from dytrack_model.thresholds import exits_taken, quantile_thresholds
from dytrack_platform.confidence import calibrate
from dytrack_platform.training.batches import Batch
from dytrack_platform.training.closed_loop import Tracked
from dytrack_platform.training.objective import TrainModule

_BETWEEN = {"quick": 0.2, "balanced": 0.4, "careful": 0.65}
"""Points between the extremes: the share of the way from the first exit's cost to full depth's."""

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


def operating_points(predicted: Tensor) -> tuple[OperatingPoint, ...]:
    """Return the standard points from (E, N) validation scores.

    ``fast`` always takes the first exit, ``accurate`` always the last; ``balanced`` spreads the
    frames evenly over the exits, and ``quick`` and ``careful`` lie between.
    """
    exits = predicted.shape[0]
    if exits == 1:
        return (OperatingPoint(name="accurate", thresholds=()),)
    scores = predicted.T.double().numpy()
    slopes = {"quick": 0.5, "balanced": 1.0, "careful": 2.0}
    points = [OperatingPoint(name="fast", thresholds=(0.0,) * (exits - 1))]
    for name, ratio in slopes.items():
        weights = [ratio**index for index in range(exits)]
        shares = tuple(weight / sum(weights) for weight in weights)
        # By shares and not by values: predicted IoU of a young decisioner is not calibrated, but
        # its order already means something.
        thresholds = quantile_thresholds(scores, shares)
        points.append(OperatingPoint(name=name, thresholds=thresholds))
    points.append(OperatingPoint(name="accurate", thresholds=(float("inf"),) * (exits - 1)))
    return tuple(points)


@dataclass(frozen=True, kw_only=True, slots=True)
class Followed:
    """Held-out videos that were followed at full depth, to choose operating points on.

    Attributes:
        tracks: One for each video; every exit was computed.
        gmacs: (E,) cost of a stop at each exit.
        heads: (E,) cost of each exit's head, which also runs in frames that pass it.
    """

    tracks: Sequence[Tracked]
    gmacs: Sequence[float]
    heads: Sequence[float]

    def points(self) -> tuple[OperatingPoint, ...]:
        """Return the standard points, as :func:`operating_points`, but by ambiguity.

        Between ``fast`` and ``accurate`` a frame goes on where an exit's answer is ambiguous, which
        is what tells the frames that depth is worth it in (docs/LOG.md): at the price at which
        these tracks cost what the point's name says.
        """
        exits = len(self.gmacs)
        if exits == 1:
            return (OperatingPoint(name="accurate", thresholds=()),)
        always = OperatingPoint(name="fast", thresholds=(0.0,) * (exits - 1))
        points = [always]
        for name, share in _BETWEEN.items():
            wanted = self.gmacs[0] + share * (self.gmacs[-1] - self.gmacs[0])
            points.append(self._point(name, self._price_at(wanted)))
        deepest = OperatingPoint(name="accurate", thresholds=(math.inf,) * (exits - 1))
        return (*points, deepest)

    def metrics(self, points: Sequence[OperatingPoint]) -> dict[str, float]:
        """Return what points give along these tracks, as :func:`point_metrics` says it."""
        found = {}
        for point in points:
            if point.value is not None:
                taken = [self._taken(track, point.value.price) for track in self.tracks]
            else:
                taken = [
                    exits_taken(track.predicted_iou, point.thresholds) for track in self.tracks
                ]
            means = [
                np.nanmean(track.iou[np.arange(len(exits)), exits])
                for track, exits in zip(self.tracks, taken, strict=True)
            ]
            found[f"val/point/{point.name}/iou"] = float(np.mean(means))
            cost = self._cost(taken, reads_heads=point.value is not None)
            found[f"val/point/{point.name}/gmacs"] = cost
        return found

    def _point(self, name: str, price: float) -> OperatingPoint:
        exits = len(self.gmacs)
        value = ValueRule(
            weights=ambiguity_weights(exits),
            costs=self._relative(),
            price=price,
            audit_every=AUDIT_EVERY,
        )
        return OperatingPoint(name=name, thresholds=(0.0,) * (exits - 1), value=value)

    def _relative(self) -> tuple[float, ...]:
        return tuple(cost / self.gmacs[-1] for cost in self.gmacs)

    def _price_at(self, gmacs: float) -> float:
        """Return the price at which the tracks cost so much: the higher, the less."""
        low, high = 0.0, sum(AMBIGUITY) / (1.0 - self._relative()[-2])
        for _ in range(40):
            middle = 0.5 * (low + high)
            taken = [self._taken(track, middle) for track in self.tracks]
            if self._cost(taken, reads_heads=True) > gmacs:
                low = middle
            else:
                high = middle
        return high

    def _taken(self, track: Tracked, price: float) -> NDArray[np.int64]:
        """Return (F - 1,) the exits of a track, as :class:`~dytrack_model.depth_value` decides."""
        left = 1.0 - np.array(self._relative()[:-1])
        leaves = track.shown[:, :-1] @ np.array(AMBIGUITY) < price * left
        deepest = len(self.gmacs) - 1
        taken = np.where(leaves.any(axis=1), leaves.argmax(axis=1), deepest)
        last = -AUDIT_EVERY  # a target's first frame goes to full depth
        for frame, depth in enumerate(taken):
            if depth == deepest or frame - last >= AUDIT_EVERY:
                taken[frame], last = deepest, frame
        return taken

    def _cost(self, taken: Sequence[NDArray[np.int64]], *, reads_heads: bool) -> float:
        """Return the mean GMACs of a frame; heads run in those that pass them."""
        passed = np.concatenate([[0.0], np.cumsum(self.heads[:-1])]) * reads_heads
        return float((np.array(self.gmacs) + passed)[np.concatenate(taken)].mean())


def point_metrics(
    points: Sequence[OperatingPoint], scores: Scores, gmacs: Sequence[float]
) -> dict[str, float]:
    """Return ``val/point/NAME/iou`` and ``val/point/NAME/gmacs`` of operating points.

    Args:
        points: Thresholds.
        scores: (E, N) predicted and (E, N) true IoU.
        gmacs: (E,) cost of a stop at each exit.
    """
    predicted, true = (part.double().numpy() for part in scores)
    found = {}
    for point in points:
        taken = exits_taken(predicted.T, point.thresholds)
        own = true[taken, np.arange(true.shape[1])]
        found[f"val/point/{point.name}/iou"] = float(own.mean())
        found[f"val/point/{point.name}/gmacs"] = float(np.asarray(gmacs)[taken].mean())
    return found

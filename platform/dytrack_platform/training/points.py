"""Operating points of a trained tracker: on the videos that it followed, else on pairs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dytrack_model.cost import exit_gmacs, planned_head_gmacs
from dytrack_model.depth_value import AMBIGUITY, AUDIT_EVERY, ValueRule, ambiguity_weights
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import OperatingPoint
from dytrack_model.thresholds import exits_taken, quantile_thresholds
from dytrack_platform.training.closed_loop import Tracked
from dytrack_platform.training.validation import Scores

_BETWEEN = {"quick": 0.2, "balanced": 0.4, "careful": 0.65}
"""Points between the extremes: the share of the way from the first exit's cost to full depth's."""


def choose_points(
    network: DyTrackNetwork, scores: Scores, tracks: Sequence[Tracked] | None
) -> tuple[tuple[OperatingPoint, ...], dict[str, float]]:
    """Return the standard points, and ``val/point/NAME/iou`` and ``val/point/NAME/gmacs`` of each.

    Args:
        network: The tracker's.
        scores: (E, N) predicted and true IoU on validation pairs.
        tracks: Validation videos that were followed at full depth, every exit computed; where they
            are there, points are chosen and judged on them.
    """
    gmacs = exit_gmacs(network)
    if tracks is None:
        points = operating_points(scores[0])
        return points, point_metrics(points, scores, gmacs)
    followed = Followed(tracks=tracks, gmacs=gmacs, heads=planned_head_gmacs(network.config))
    points = followed.points()
    return points, followed.metrics(points)


def operating_points(predicted: Tensor) -> tuple[OperatingPoint, ...]:
    """Return the standard points from (E, N) validation scores.

    ``fast`` always takes the first exit, ``accurate`` always the last; ``balanced`` spreads the
    frames evenly over the exits, and ``quick`` and ``careful`` lie between.
    """
    exits = predicted.shape[0]
    if exits == 1:
        return _with_extremes(exits, [])
    scores = predicted.T.double().numpy()
    slopes = {"quick": 0.5, "balanced": 1.0, "careful": 2.0}
    points = []
    for name, ratio in slopes.items():
        weights = [ratio**index for index in range(exits)]
        shares = tuple(weight / sum(weights) for weight in weights)
        # By shares and not by values: predicted IoU of a young decisioner is not calibrated, but
        # its order already means something.
        thresholds = quantile_thresholds(scores, shares)
        points.append(OperatingPoint(name=name, thresholds=thresholds))
    return _with_extremes(exits, points)


def _with_extremes(exits: int, between: Sequence[OperatingPoint]) -> tuple[OperatingPoint, ...]:
    """Return points from always leaving at the first exit to never before the last."""
    fast = OperatingPoint(name="fast", thresholds=(0.0,) * (exits - 1))
    accurate = OperatingPoint(name="accurate", thresholds=(math.inf,) * (exits - 1))
    return (fast, *between, accurate) if exits > 1 else (accurate,)


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
            return _with_extremes(exits, [])
        points = []
        for name, share in _BETWEEN.items():
            wanted = self.gmacs[0] + share * (self.gmacs[-1] - self.gmacs[0])
            points.append(self._point(name, self._price_at(wanted)))
        return _with_extremes(exits, points)

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

"""Fit the value of depth to what depth gained on held-out sequences, and simulate policies.

Exits are taken at random first, so that every kind of memory meets every kind of frame. A label is
the IoU that the deepest exit's box has more than a shallow one's, in that frame and in those that
follow when the tracker goes on from either box (a roll-out, always at the first exit).

Dimensions: E exits, F features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dytrack_model.ambiguity import Ambiguity
from dytrack_model.correction import BoxCorrection, agreement
from dytrack_model.depth_value import Memory
from dytrack_model.policy import Policy, RandomExit
from dytrack_platform.errors import DataError
from dytrack_platform.training.closed_loop import (
    Film,
    Floats,
    ManyTargets,
    Starts,
    Tracked,
    always,
    follow,
)

_RIDGE = 1e-2
"""Penalty on weights, in units of the number of examples: features lie within [0, 1]."""


@dataclass(frozen=True, slots=True)
class Examples:
    """What was known at an exit, and what going on would have gained."""

    features: Floats
    """(N, F)."""
    frame_gain: Floats
    """(N,) IoU gained in the frame itself."""
    gain: Floats
    """(N,) mean IoU gained over the frame and the roll-out."""
    film: Floats
    """(N,) number of the film."""


def explore(
    many: ManyTargets, films: Sequence[Film], *, copies: int, seed: int = 0
) -> tuple[list[Film], list[Tracked]]:
    """Follow films with exits at random, each ``copies`` times."""
    exits = many.network.exit_count
    shares = (0.45, *[0.2 / max(exits - 2, 1)] * (exits - 2), 0.35)
    repeated = [film for _ in range(copies) for film in films]
    policies: list[Policy] = [RandomExit(shares, seed + i) for i in range(len(repeated))]
    return repeated, follow(many, repeated, policies)


def examples(
    many: ManyTargets,
    films: Sequence[Film],
    tracked: Sequence[Tracked],
    *,
    horizon: int,
    stride: int,
) -> list[Examples]:
    """Describe every ``stride``-th frame at every exit but the last, with its labels.

    Raises:
        DataError: No such frame has a box and follows one that ran to full depth.
    """
    exits = many.network.exit_count
    states: list[tuple[int, int, list[tuple[float, ...]]]] = []
    for number, one in enumerate(tracked):
        memory = Memory()
        agreed = agreement(one.exit_boxes_xywh.transpose(1, 0, 2))
        for frame in range(len(one.exits)):
            memory.pass_frame()
            if memory.age is not None and frame % stride == 0 and np.isfinite(one.iou[frame, 0]):
                said = one.predicted_iou[frame]
                shown = [Ambiguity(*numbers) for numbers in one.shown[frame].tolist()]
                rows = [memory.features(k, float(said[k]), shown[k]) for k in range(exits - 1)]
                states.append((number, frame, rows))
            if one.exits[frame] == exits - 1:
                memory.take(one.predicted_iou[frame].tolist(), agreed[:, frame].tolist())
    if not states:
        raise DataError(
            f"{len(films)} sequences: no frame that has a box follows one at full depth; give more "
            "or longer ones"
        )
    means = np.stack(
        [_rolled(many, films, tracked, states, k, horizon) for k in range(exits)], axis=1
    )
    frame_iou = np.stack([tracked[i].iou[t] for i, t, _ in states])
    film = np.array([float(i) for i, _, _ in states])
    found = []
    for k in range(exits - 1):
        features = np.array([rows[k] for _, _, rows in states])
        found.append(
            Examples(features, frame_iou[:, -1] - frame_iou[:, k], means[:, -1] - means[:, k], film)
        )
    return found


def fit(found: Sequence[Examples], *, rolled: bool = True) -> tuple[tuple[float, ...], ...]:
    """Return (E - 1, F) weights by ridge regression on the gains."""
    weights = []
    for one in found:
        target = one.gain if rolled else one.frame_gain
        usable = np.isfinite(target)
        x, y = one.features[usable], target[usable]
        penalty = _RIDGE * len(x) * np.eye(x.shape[1])
        penalty[0, 0] = 0.0  # the constant is free
        solved = np.linalg.solve(x.T @ x + penalty, x.T @ y)
        weights.append(tuple(float(value) for value in solved))
    return tuple(weights)


def simulate(
    many: ManyTargets,
    films: Sequence[Film],
    policies: Mapping[str, Sequence[Policy]],
    horizon: int | None = None,
) -> dict[str, tuple[Floats, Floats]]:
    """Follow all films under several policies at once.

    Returns:
        For each policy the mean IoU of every film, and the share of frames at every exit (E,).
    """
    count, exits = len(films), many.network.exit_count
    everyone = [policy for group in policies.values() for policy in group]
    tracked = follow(many, [*films] * len(policies), everyone, horizon=horizon)
    results = {}
    for number, name in enumerate(policies):
        own = tracked[number * count : (number + 1) * count]
        iou = np.array([np.nanmean(t.own_iou) for t in own])
        taken = np.concatenate([t.exits for t in own])
        results[name] = (iou, np.bincount(taken, minlength=exits) / len(taken))
    return results


def _rolled(
    many: ManyTargets,
    films: Sequence[Film],
    tracked: Sequence[Tracked],
    states: Sequence[tuple[int, int, list[tuple[float, ...]]]],
    exit_index: int,
    horizon: int,
) -> Floats:
    """Return each state's mean IoU if it leaves at an exit, that frame and a roll-out together."""
    exits = many.network.exit_count
    boxes = np.stack([tracked[i].exit_boxes_xywh[t] for i, t, _ in states], axis=1)  # (E, N, 4)
    shifts = np.stack([tracked[i].shifts[t] for i, t, _ in states], axis=1)
    if exit_index == exits - 1:
        # Corrected boxes differ from the deepest by what the next correction has to add.
        learned = BoxCorrection(exits, len(states))
        learned.learn(boxes)
        shifts = shifts + learned.shifts
    frames = np.array([t + 1 for _, t, _ in states], np.int64)
    starts = Starts(frames, boxes[exit_index], shifts)
    chosen = [films[i] for i, _, _ in states]
    going = [
        number for number, film in enumerate(chosen) if frames[number] + 1 < len(film.pictures)
    ]
    rolled = follow(
        many,
        [chosen[n] for n in going],
        always(0, going),
        Starts(starts.frames[going], starts.boxes_xywh[going], starts.shifts[:, going]),
        horizon,
    )
    now = np.array([tracked[i].iou[t, exit_index] for i, t, _ in states])
    means = now.copy()
    for place, one in zip(going, rolled, strict=True):
        values = np.concatenate([[now[place]], one.own_iou])
        means[place] = np.nanmean(values) if np.isfinite(values).any() else np.nan
    return means

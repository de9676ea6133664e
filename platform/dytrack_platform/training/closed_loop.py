"""Track many sequences at once on the training device: the judgement that counts.

Pairs tell how well a box is found in a crop around where the target was. In a video the crop is
cut around where the tracker *believes* that it was, and an error of one frame moves the next.
Sequences that lie in memory are followed side by side as one batch, which a graphics card does
thousands of frames a second; every exit is computed, so that any policy can be simulated.

The rules are :class:`~dytrack_model.online.Tracker`'s: template from the first frame, Hann window
on the score map, box clipped to the frame with a margin.

Dimensions: N targets, E exits, F frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dytrack_model.ambiguity import Ambiguity, distraction, motion
from dytrack_model.config import ModelConfig
from dytrack_model.correction import BoxCorrection, agreement, overlap
from dytrack_model.crops import LEAST_SIDE
from dytrack_model.exits.heads import read_boxes
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import FixedExit, Policy
from dytrack_platform.datasets.resident.draws import Shots
from dytrack_platform.datasets.resident.store import PictureStore, square_crops, square_matrices

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Film:
    """A sequence in memory: every frame, also those without a usable box."""

    name: str
    pictures: Integers
    """(F,) pictures, in order."""
    size: tuple[int, int]
    """Width and height of the frames."""
    boxes_xywh: Floats
    """(F, 4) pixels; NaN where the target is absent or its box cannot be used. The first frame
    has one."""


@dataclass(frozen=True, slots=True)
class Found:
    """What every exit says of N targets in their next frames."""

    boxes_xywh: Floats
    """(E, N, 4) pixels of the frames."""
    predicted_iou: Floats
    """(E, N)."""
    peaks: Floats
    """(E, N) highest score of the head's map times the window."""
    distractors: Floats
    """(E, N) how strong the strongest other thing is; see :mod:`dytrack_model.ambiguity`."""
    summaries: Floats
    """(E, N, 4) what the decisioner's map says; zeros where it has none."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """What a tracker said of a film after its first frame."""

    boxes_xywh: Floats
    """(F - 1, 4) pixels, of the exits that were taken."""
    exit_boxes_xywh: Floats
    """(F - 1, E, 4) of all exits on this track."""
    exits: Integers
    """(F - 1,) index of these exits."""
    iou: Floats
    """(F - 1, E) of every exit's box on this track; NaN where there is no truth."""
    predicted_iou: Floats
    """(F - 1, E)."""
    peaks: Floats
    """(F - 1, E)."""
    shown: Floats
    """(F - 1, E, 3) what every exit's head shows; see :mod:`dytrack_model.ambiguity`."""
    summaries: Floats
    """(F - 1, E, 4)."""
    shifts: Floats
    """(F - 1, E - 1, 4) corrections that were in force."""

    @property
    def own_iou(self) -> Floats:
        """(F - 1,) IoU of the boxes that were taken."""
        return np.asarray(self.iou[np.arange(len(self.exits)), self.exits], np.float64)


@dataclass(frozen=True, slots=True)
class Starts:
    """Where roll-outs begin: in the middle of films."""

    frames: Integers
    """(N,) the last frame that is known."""
    boxes_xywh: Floats
    """(N, 4) the target's believed box there."""
    shifts: Floats
    """(E - 1, N, 4) corrections that were learned until then."""


class ManyTargets:
    """Finds N targets as one batch.

    Args:
        network: In evaluation mode, on the device of ``pictures``.
        pictures: All frames.
        window: (H, W) weights of the score map's cells.
        half: Run the blocks in bf16.
    """

    def __init__(
        self, network: DyTrackNetwork, pictures: PictureStore, window: Tensor, *, half: bool
    ) -> None:
        self.network, self._pictures, self._half = network, pictures, half
        self._window = window.to(pictures.pixels.device)

    @torch.inference_mode()
    def embed(self, pictures: Integers, boxes_xywh: Floats) -> tuple[Tensor, Tensor | None]:
        """Return the template states of (N, 4) targets, and their shares of template patches."""
        config = self.network.config
        crops, sides, _ = self._crops(
            pictures, boxes_xywh, config.template_factor, config.template_size
        )
        share = None
        if config.reads_target_box:
            inside = np.hstack([np.full((len(sides), 2), 0.5), boxes_xywh[:, 2:] / sides[:, None]])
            share = self.network.target_share(torch.from_numpy(inside).float().to(crops.device))
        with self._autocast():
            return self.network.embed_template(crops, share), share

    @torch.inference_mode()
    def find(
        self,
        template: Tensor,
        share: Tensor | None,
        pictures: Integers,
        boxes_xywh: Floats,
    ) -> Found:
        """Find every target in its next frame at every exit.

        Args:
            template: What :meth:`embed` gave.
            share: And with it.
            pictures: (N,) the next frames.
            boxes_xywh: (N, 4) where the targets were.

        Returns:
            Boxes that may reach out of the frames.
        """
        network, config = self.network, self.network.config
        crops, sides, centres = self._crops(
            pictures, boxes_xywh, config.search_factor, config.search_size
        )
        boxes, predicted, weighted, summaries = [], [], [], []
        with self._autocast():
            tokens = network.embed_search(crops, template)
            exit_features = None
            for index in range(network.exit_count):
                tokens = network.advance(index, tokens, template)
                own = network.read(index, tokens, share)
                exit_features = network.recycle(index, own, exit_features)
                with torch.autocast(tokens.device.type, enabled=False):
                    full = exit_features._replace(
                        features=exit_features.features.float(),
                        iou_token=exit_features.iou_token.float(),
                    )
                    maps = network.locate(index, full)
                    predicted.append(network.decide(index, full))
                    if network.score_summaries:
                        summary = network.score_summaries[index]
                        summaries.append(summary.describe(own.features.float()))  # type: ignore[operator]
                boxes.append(read_boxes(maps, self._window))
                weighted.append(maps.score * self._window)
        found, scores = _host(boxes), _host(weighted)
        peaks = scores.max(axis=(2, 3))
        distractors = np.stack([distraction(*one) for one in zip(scores, found, strict=True)])
        found = found * sides[None, :, None]
        corners = centres - 0.5 * sides[:, None] + found[..., :2] - 0.5 * found[..., 2:]
        mapped = np.concatenate([corners, found[..., 2:]], axis=2)
        described = _host(summaries) if summaries else np.zeros((*mapped.shape[:2], 4))
        return Found(mapped, _host(predicted), peaks, distractors, described)

    def _crops(
        self, pictures: Integers, boxes_xywh: Floats, factor: float, size: int
    ) -> tuple[Tensor, Floats, Floats]:
        sides, centres = square_crops(boxes_xywh, factor)
        matrices = square_matrices(centres, sides, size, np.zeros(len(sides), bool))
        device = self._pictures.pixels.device
        crops = self._pictures.crops(
            torch.from_numpy(pictures).to(device),
            torch.from_numpy(matrices).float().to(device),
            size,
        )
        return crops.round().to(torch.uint8).permute(0, 3, 1, 2), sides, centres

    def _autocast(self) -> torch.autocast:
        device = self._pictures.pixels.device.type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self._half)


def follow(
    many: ManyTargets,
    films: Sequence[Film],
    policies: Sequence[Policy],
    starts: Starts | None = None,
    horizon: int | None = None,
    *,
    correct: bool = True,
) -> list[Tracked]:
    """Follow every film's target from its first frame, or from the middle.

    Args:
        many: Finds them.
        films: The films; one may be there several times.
        policies: One for each film.
        starts: Where to begin; the template is always the first frame's. Policies are then told
            of no new target.
        horizon: Frames to follow; None: to the end.
        correct: Correct shallow boxes by what depth last said.
    """
    count, exits = len(films), many.network.exit_count
    first = np.stack([film.boxes_xywh[0] for film in films])
    template, share = many.embed(np.array([film.pictures[0] for film in films]), first)
    # Cached attention has keys and values by block before targets.
    targets_axis = 2 if many.network.backbone.cached else 0
    correction = BoxCorrection(exits, count)
    boxes, begin = first.copy(), np.zeros(count, np.int64)
    if starts is None:
        for policy in policies:
            policy.begin_target()
    else:
        boxes, begin = starts.boxes_xywh.copy(), starts.frames
        correction.shifts = starts.shifts.copy()
    ends = np.array([len(film.pictures) for film in films])
    if horizon is not None:
        ends = np.minimum(ends, begin + 1 + horizon)
    said: list[list[_Said]] = [[] for _ in films]
    for frame in range(1, int((ends - begin).max())):
        alive = np.flatnonzero(begin + frame < ends)
        kept = torch.from_numpy(alive).to(template.device)
        seen = [films[i] for i in alive.tolist()]
        sizes = np.array([film.size for film in seen])
        found = many.find(
            template.index_select(targets_axis, kept),
            None if share is None else share[kept],
            np.array(
                [film.pictures[now] for film, now in zip(seen, begin[alive] + frame, strict=True)]
            ),
            boxes[alive],
        )
        raw, before = found.boxes_xywh, correction.shifts[:, alive]
        ours = BoxCorrection(exits, len(alive))
        ours.shifts = before
        corrected = ours.apply(raw)
        shown = _ambiguities(found.distractors, corrected, boxes[alive], many.network.config)
        found = replace(found, boxes_xywh=clip_boxes(corrected, sizes))
        agreed = agreement(found.boxes_xywh)
        taken = np.array(
            [
                _exit_of(
                    policies[i],
                    found.predicted_iou[:, place],
                    shown[:, place],
                    agreed[:, place],
                )
                for place, i in enumerate(alive.tolist())
            ]
        )
        if correct:
            ours.learn(raw, taken == exits - 1)
        correction.shifts[:, alive] = ours.shifts
        boxes[alive] = found.boxes_xywh[taken, np.arange(len(alive))]
        for place, i in enumerate(alive.tolist()):
            said[i].append(
                _Said(found, place, int(taken[place]), before[:, place], shown[:, place])
            )
    return [
        _judged(film, start, frames)
        for film, start, frames in zip(films, begin.tolist(), said, strict=True)
    ]


class _Said(NamedTuple):
    """One frame of one film."""

    found: Found
    place: int
    taken: int
    shifts: Floats
    shown: Floats


def _ambiguities(
    distractors: Floats, boxes_xywh: Floats, before_xywh: Floats, config: ModelConfig
) -> Floats:
    """Return (E, N, 3) ambiguities of boxes (E, N, 4) in crops that were cut around (N, 4)."""
    factor = config.search_factor
    sides, centres = square_crops(before_xywh, factor)
    inside = np.empty(boxes_xywh.shape)
    inside[..., :2] = boxes_xywh[..., :2] + 0.5 * boxes_xywh[..., 2:] - centres
    inside[..., 2:] = boxes_xywh[..., 2:]
    inside /= sides[:, None]
    inside[..., :2] += 0.5
    return np.concatenate([distractors[..., None], motion(inside, factor)], axis=-1)


def _exit_of(policy: Policy, predicted_iou: Floats, shown: Floats, agreed: Floats) -> int:
    """Ask a policy exit by exit, as the online tracker does."""
    policy.begin_frame()
    last = len(predicted_iou) - 1
    for index in range(last):
        ambiguity = Ambiguity(*shown[index].tolist())
        if policy.leave(index, float(predicted_iou[index]), ambiguity):
            return index
    policy.full_depth(predicted_iou.tolist(), agreed.tolist())
    return last


def always(exit_index: int, films: Sequence[object]) -> list[Policy]:
    """Return the policy of one fixed depth for each film."""
    return [FixedExit(exit_index) for _ in films]


def clip_boxes(boxes_xywh: Floats, sizes: Integers, margin: float = 10.0) -> Floats:
    """Keep part of boxes (E, N, 4) inside of frames (N, 2).

    The rule is that of :func:`~dytrack_model.crops.clip_box`.
    """
    sides = np.maximum(LEAST_SIDE, boxes_xywh[..., 2:])
    low = boxes_xywh[..., :2] - 0.5 * (sides - boxes_xywh[..., 2:])
    high = low + sides
    sizes = sizes.astype(np.float64)
    margins = np.minimum(np.minimum(margin, sides), 0.5 * sizes)
    low = np.minimum(np.maximum(low, 0.0), sizes - margins)
    high = np.minimum(np.maximum(high, margins), sizes)
    return np.concatenate([low, np.maximum(margins, high - low)], axis=-1)


def film_of(shots: Shots, pictures: Integers, size: tuple[int, int]) -> Film:
    """Make a film of all pictures of a sequence from its first usable box on."""
    boxes = np.full((len(pictures), 4), np.nan)
    boxes[shots.numbers] = shots.boxes_xywh
    start = int(shots.numbers[0])
    return Film(shots.name, pictures[start:], size, boxes[start:])


def _judged(film: Film, start: int, frames: list[_Said]) -> Tracked:
    exits = np.array([one.taken for one in frames], np.int64)
    boxes = np.stack([one.found.boxes_xywh[:, one.place] for one in frames])
    truth = film.boxes_xywh[start + 1 : start + 1 + len(frames)]
    iou = np.stack([overlap(boxes[:, k], truth) for k in range(boxes.shape[1])], axis=1)
    return Tracked(
        boxes[np.arange(len(exits)), exits],
        boxes,
        exits,
        iou,
        np.stack([one.found.predicted_iou[:, one.place] for one in frames]),
        np.stack([one.found.peaks[:, one.place] for one in frames]),
        np.stack([one.shown for one in frames]),
        np.stack([one.found.summaries[:, one.place] for one in frames]),
        np.stack([one.shifts for one in frames]),
    )


def _host(tensors: list[Tensor]) -> Floats:
    return np.asarray(torch.stack(tensors).double().cpu().numpy(), np.float64)

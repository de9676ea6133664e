"""Choose pairs by the batch, on the host: which pictures, which squares of them, what lies over.

Three kinds of pairs:

frames
    Two frames of one sequence, as in the field's recipe.
still
    One annotated object of a still picture, seen twice.
composed
    A thing with a mask over two pictures, or two places of one: turned, scaled and lit
    differently, among other things of its kind, partly hidden.

Things also lie over frames and stills, beside the target and rarely over part of it. Every number
follows from (seed, epoch, step): a batch is the same on every machine and whatever the number of
workers.

Dimensions: B pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dytrack_model.config import ModelConfig
from dytrack_platform.config.schema import DataConfig, OverlayConfig
from dytrack_platform.datasets.prepared.windows import JITTER_LIMIT
from dytrack_platform.datasets.resident.render import Floats, Integers, Layer, Light, View
from dytrack_platform.datasets.resident.store import square_crops, square_matrices


@dataclass(frozen=True, slots=True)
class Shots:
    """Usable boxes of one target: frames of a sequence, or one object of a still."""

    name: str
    """``dataset/sequence``."""
    pictures: Integers
    """(F,) pictures."""
    numbers: Integers
    """(F,) frame numbers."""
    boxes_xywh: Floats
    """(F, 4) pixels of the pictures."""


@dataclass(frozen=True, slots=True)
class Group:
    """Targets that share a source's weight."""

    weight: float
    """Share of the pairs, relative to the other groups."""
    targets: Sequence[Shots]
    chances: Floats
    """Chance of each target; they sum to 1."""


@dataclass(frozen=True, slots=True)
class Things:
    """Cut-outs that can be laid over pictures."""

    hulls: Floats
    """(K, P, 2) convex hulls in pixels."""
    kinds: Integers
    """(K,) number of the category."""
    chances: Floats
    """(K,) chance of each; they sum to 1, with categories balanced."""
    grounds: Integers
    """Pictures that things may be composed over."""
    ground_sizes: Floats
    """Width and height of each of them."""


class PairDraws:
    """Draws batches of pairs."""

    def __init__(
        self, data: DataConfig, model: ModelConfig, groups: Sequence[Group], things: Things | None
    ) -> None:
        self._data, self._model, self._groups, self._things = data, model, groups, things
        self._overlay: OverlayConfig = data.overlay
        composed = self._overlay.composed if things is not None else 0.0
        weights = [group.weight for group in groups]
        total = sum(weights) + composed
        self._shares = np.array([*weights, composed]) / total
        self._ladders = [np.cumsum(group.chances) for group in groups]
        self._things_ladder = np.cumsum(things.chances) if things is not None else np.ones(1)

    def draw(self, rng: np.random.Generator, count: int) -> tuple[View, View]:
        """Draw templates and search regions of ``count`` pairs."""
        kinds = rng.choice(len(self._shares), size=count, p=self._shares)
        real = np.flatnonzero(kinds < len(self._groups))
        composed = np.flatnonzero(kinds == len(self._groups))
        order = np.concatenate([real, composed])
        mirrored = rng.random(count) < self._data.flip  # both crops of a pair alike
        model = self._model
        template = _Canvas(count, model.template_size, model.template_factor)
        search = _Canvas(count, model.search_size, model.search_factor)
        if len(real):
            self._real(rng, kinds, real, mirrored, template, search)
        if len(composed):
            self._composed(rng, composed, template, search)
        if self._things is not None:
            self._passers_by(rng, order, search, set(composed.tolist()))
        grey = rng.random(count) < self._data.grayscale_prob
        return (
            template.view(self._light(rng, count, grey)),
            search.view(self._light(rng, count, grey)),
        )

    def _real(
        self,
        rng: np.random.Generator,
        kinds: Integers,
        rows: Integers,
        mirrored: NDArray[np.bool_],
        template: "_Canvas",
        search: "_Canvas",
    ) -> None:
        """Choose frames and squares around their targets."""
        picked = []
        for kind in kinds[rows].tolist():
            group = self._groups[kind]
            shots = group.targets[int(_pick(rng, self._ladders[kind], 1)[0])]
            first, second = _two_frames(shots.numbers, self._data.max_gap, rng)
            picked.append((shots, first, second))
        for canvas, frame in ((template, 1), (search, 2)):
            boxes = np.stack([pick[0].boxes_xywh[pick[frame]] for pick in picked])
            pictures = np.array([pick[0].pictures[pick[frame]] for pick in picked])
            moving = canvas is search
            self._look(rng, canvas, rows, pictures, boxes, mirrored[rows], moving=moving)

    def _look(
        self,
        rng: np.random.Generator,
        canvas: "_Canvas",
        rows: Integers,
        pictures: Integers,
        boxes: Floats,
        mirrored: NDArray[np.bool_],
        *,
        moving: bool,
    ) -> None:
        """Aim a square at each box, as far beside it as tracking might."""
        roots = np.sqrt(boxes[:, 2] * boxes[:, 3])
        shifts, factors = self._jitter(rng, len(rows), canvas.factor, moving=moving)
        sides, middles = square_crops(boxes, factors)
        centres = middles + shifts * roots[:, None]
        canvas.pictures[rows] = pictures
        canvas.matrices[rows] = square_matrices(centres, sides, canvas.size, mirrored)
        offsets = (middles - centres) / sides[:, None]
        offsets[mirrored, 0] *= -1
        canvas.boxes[rows] = np.hstack([offsets + 0.5, boxes[:, 2:] / sides[:, None]])

    def _jitter(
        self, rng: np.random.Generator, count: int, factor: float, *, moving: bool
    ) -> tuple[Floats, Floats]:
        """Return shifts in units of the target's size, and sides in the same unit."""
        data = self._data
        if not moving:
            # Whoever marks a target does not mark it to the pixel.
            loose = self._overlay.loose_template
            shifts = rng.standard_normal((count, 2)).clip(-2, 2) * loose
            return shifts, factor * np.exp(rng.standard_normal(count).clip(-2, 2) * loose)
        deviations = rng.standard_normal(count).clip(-JITTER_LIMIT, JITTER_LIMIT)
        factors = factor * np.exp(deviations * data.scale_jitter)
        shifts = (rng.random((count, 2)) - 0.5) * data.centre_jitter
        limit = 0.48 * factors[:, None]  # the target's centre stays inside
        return shifts.clip(-limit, limit), factors

    def _composed(
        self, rng: np.random.Generator, rows: Integers, template: "_Canvas", search: "_Canvas"
    ) -> None:
        """Lay things over pictures as targets."""
        things = self._things
        assert things is not None  # shares are 0 without things
        count = len(rows)
        chosen = _pick(rng, self._things_ladder, count)
        first = rng.integers(len(things.grounds), size=count)
        same = rng.random(count) < 0.5
        second = np.where(same, first, rng.integers(len(things.grounds), size=count))
        angles = rng.normal(0, 0.15, count)
        turns = rng.normal(0, self._overlay.turn, count)
        stretches = np.exp(rng.normal(0, 0.1, count))
        mirrors = rng.random(count) < 0.5
        gains = rng.uniform(0.75, 1.3, (count, 1)) * rng.uniform(0.92, 1.08, (count, 3))
        for canvas, ground, angle, moving in (
            (template, first, angles, False),
            (search, second, angles + turns, True),
        ):
            canvas.pictures[rows] = things.grounds[ground]
            canvas.matrices[rows] = _grounds(rng, things.ground_sizes[ground], canvas.size)
            shifts, factors = self._jitter(rng, count, canvas.factor, moving=moving)
            sides = canvas.size / factors  # of the target, in pixels of the crop
            centres = canvas.size * 0.5 - shifts * sides[:, None]
            relight = rng.uniform(0.85, 1.18, (count, 1))
            stretch = stretches * (np.exp(rng.normal(0, 0.08, count)) if moving else 1.0)
            if moving:
                canvas.layers.append(self._kin(rng, rows, chosen, centres, sides, canvas.size))
            layer, boxes = _lay(
                things, rows, chosen, centres, sides, angle, stretch, mirrors, gains * relight
            )
            canvas.layers.append(layer)
            canvas.boxes[rows] = boxes / canvas.size

    def _kin(
        self,
        rng: np.random.Generator,
        rows: Integers,
        chosen: Integers,
        centres: Floats,
        sides: Floats,
        size: int,
    ) -> Layer:
        """Lay another thing, often of the target's kind, beneath it and near."""
        things = self._things
        assert things is not None  # the caller composes with them
        kept = np.flatnonzero(rng.random(len(rows)) < self._overlay.distractors)
        kin = np.array([self._of_kind(rng, int(thing)) for thing in chosen[kept]], dtype=np.int64)
        away = rng.uniform(0, 2 * np.pi, len(kept))
        distances = sides[kept] * rng.uniform(0.8, 2.0, len(kept))
        places = centres[kept] + distances[:, None] * np.stack([np.cos(away), np.sin(away)], 1)
        return _scattered(rng, things, rows[kept], kin, places, sides[kept])

    def _of_kind(self, rng: np.random.Generator, thing: int) -> int:
        """Choose another thing, of the same category half of the time."""
        things = self._things
        assert things is not None  # the caller has a thing
        if rng.random() < 0.5:
            same = np.flatnonzero(things.kinds == things.kinds[thing])
            if len(same) > 1:
                return int(same[rng.integers(len(same))])
        return int(_pick(rng, self._things_ladder, 1)[0])

    def _passers_by(
        self, rng: np.random.Generator, rows: Integers, search: "_Canvas", composed: set[int]
    ) -> None:
        """Lay things beside the target, and over part of it."""
        things = self._things
        assert things is not None  # the caller has checked
        overlay = self._overlay
        sides = np.sqrt(search.boxes[rows, 2] * search.boxes[rows, 3]) * search.size
        centres = search.boxes[rows, :2] * search.size
        halves = 0.5 * search.boxes[rows, 2:] * search.size
        for share, hiding in ((overlay.distractors, False), (overlay.hidden, True)):
            kept = np.flatnonzero(rng.random(len(rows)) < share)
            if not hiding:
                kept = np.array([k for k in kept if int(rows[k]) not in composed], np.int64)
            if len(kept) == 0:
                continue
            which = _pick(rng, self._things_ladder, len(kept))
            away = rng.uniform(0, 2 * np.pi, len(kept))
            direction = np.stack([np.cos(away), np.sin(away)], 1)
            least, most = (0.4, 0.9) if hiding else (0.5, 1.3)
            own = sides[kept] * rng.uniform(least, most, len(kept))
            # Beside: the circles around both do not meet. Over it: up to half is hidden.
            radius = np.hypot(halves[kept, 0], halves[kept, 1])
            if hiding:
                distances = 0.5 * own + radius * rng.uniform(0.1, 0.8, len(kept))
            else:
                distances = 0.75 * own + radius * rng.uniform(1.0, 2.2, len(kept))
            places = centres[kept] + distances[:, None] * direction
            search.layers.append(_scattered(rng, things, rows[kept], which, places, own))

    def _light(self, rng: np.random.Generator, count: int, grey: NDArray[np.bool_]) -> Light:
        data, overlay = self._data, self._overlay
        bright = rng.uniform(1 - data.brightness, 1 + data.brightness, (count, 1))
        tint = rng.uniform(1 - overlay.tint, 1 + overlay.tint, (count, 3))
        blurred = rng.random((2, count)) < overlay.blur
        away = rng.uniform(0, 2 * np.pi, count)
        lengths = rng.uniform(2, 12, count) * blurred[1]
        return Light(
            gains=bright * tint,
            contrasts=rng.uniform(1 - overlay.contrast, 1 + overlay.contrast, count),
            greys=grey,
            coarse=np.where(blurred[0], rng.uniform(0.25, 0.85, count), 1.0),
            smears=np.stack([np.cos(away), np.sin(away)], 1) * lengths[:, None],
            grain=np.where(rng.random(count) < overlay.blur, rng.uniform(2, 10, count), 0.0),
        )


class _Canvas:
    """One side of the pairs while it is being filled."""

    def __init__(self, count: int, size: int, factor: float) -> None:
        self.size, self.factor = size, factor
        self.pictures = np.zeros(count, np.int64)
        self.matrices = np.zeros((count, 2, 3))
        self.boxes = np.zeros((count, 4))
        self.layers: list[Layer] = []

    def view(self, light: Light) -> View:
        """Return what was filled in."""
        return View(self.pictures, self.matrices, tuple(self.layers), light, self.boxes)


def _pick(rng: np.random.Generator, ladder: Floats, count: int) -> Integers:
    """Draw numbers whose cumulative chances are given."""
    found = np.searchsorted(ladder, rng.random(count) * ladder[-1], side="right")
    return np.asarray(found.clip(max=len(ladder) - 1), np.int64)


def _two_frames(numbers: Integers, max_gap: int, rng: np.random.Generator) -> tuple[int, int]:
    """Choose a frame, and another at most ``max_gap`` away, before or after it."""
    first = int(rng.integers(len(numbers)))
    near = np.flatnonzero(np.abs(numbers - numbers[first]) <= max_gap)
    if len(near) == 1:
        return first, first
    second = int(near[rng.integers(len(near) - 1)])
    return first, second if second != first else int(near[-1])


def _grounds(rng: np.random.Generator, sizes: Floats, size: int) -> Floats:
    """Aim squares at any part of pictures."""
    count = len(sizes)
    shorter = sizes.min(axis=1)
    sides = shorter * rng.uniform(0.35, 1.0, count)
    room = sizes - sides[:, None]
    centres = 0.5 * sides[:, None] + rng.random((count, 2)) * room
    return square_matrices(centres, sides, size, rng.random(count) < 0.5)


def _scattered(
    rng: np.random.Generator,
    things: Things,
    rows: Integers,
    which: Integers,
    centres: Floats,
    sides: Floats,
) -> Layer:
    """Lay things at places, turned and lit at random."""
    count = len(rows)
    layer, _ = _lay(
        things,
        rows,
        which,
        centres,
        sides,
        rng.normal(0, 0.3, count),
        np.exp(rng.normal(0, 0.1, count)),
        rng.random(count) < 0.5,
        rng.uniform(0.7, 1.3, (count, 1)) * rng.uniform(0.9, 1.1, (count, 3)),
    )
    return layer


def _lay(
    things: Things,
    rows: Integers,
    which: Integers,
    centres: Floats,
    sides: Floats,
    angles: Floats,
    stretches: Floats,
    mirrors: NDArray[np.bool_],
    gains: Floats,
) -> tuple[Layer, Floats]:
    """Place things so that their boxes have given centres and areas.

    Args:
        things: All of them.
        rows: (K,) crops to lay them over.
        which: (K,) the things.
        centres: (K, 2) centre of each thing's box in pixels of the crop.
        sides: (K,) root of the box's area in pixels of the crop.
        angles: (K,) radians.
        stretches: (K,) factor on the width over the height, area kept.
        mirrors: (K,) whether left and right change places.
        gains: (K, 3) factors on the colours.

    Returns:
        The layer, and the boxes (K, 4) ``cx, cy, w, h`` in pixels of the crop: the extents of
        the turned silhouettes.
    """
    root = np.sqrt(stretches)
    cos, sin = np.cos(angles), np.sin(angles)
    flips = np.where(mirrors, -1.0, 1.0)
    # From the thing's pixels to the crop's: mirror and stretch, then turn; the scale follows.
    forward = np.empty((len(which), 2, 2))
    forward[:, 0, 0], forward[:, 0, 1] = cos * root * flips, -sin / root
    forward[:, 1, 0], forward[:, 1, 1] = sin * root * flips, cos / root
    hulls = np.einsum("kij,kpj->kpi", forward, things.hulls[which])
    low, high = hulls.min(axis=1), hulls.max(axis=1)
    extents = high - low
    scales = sides / np.sqrt(np.maximum(extents.prod(axis=1), 1e-9))
    middles = 0.5 * (low + high)
    inverse = np.linalg.inv(forward) / scales[:, None, None]
    # A crop's pixel (u, v), centre at (u + .5, v + .5), less the place, back to the thing's.
    shift = np.einsum("kij,kj->ki", inverse, 0.5 - centres)
    shift += np.einsum("kij,kj->ki", np.linalg.inv(forward), middles) - 0.5
    matrices = np.concatenate([inverse, shift[..., None]], axis=2)
    boxes = np.hstack([centres, extents * scales[:, None]])
    return Layer(rows, which, matrices, gains), boxes

"""Draw one training pair from a clip: frames, jitter, augmentation, crops.

The recipe is OSTrack's; where it leaves something open, the docstrings say what is our choice.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dytrack_model.config import ModelConfig
from dytrack_model.crops import box_to_crop, centre, crop, crop_side
from dytrack_platform.config import DataConfig
from dytrack_platform.datasets.io.frames import decode
from dytrack_platform.datasets.io.text import usable_boxes
from dytrack_platform.datasets.prepared.shards import StoredClip
from dytrack_platform.datasets.prepared.windows import JITTER_LIMIT
from dytrack_platform.datasets.sequence import Pixels

_TRIES = 10


@dataclass(frozen=True, slots=True)
class Pair:
    """A template crop and a search crop of the same target."""

    template: Pixels
    """(T, T, 3) uint8, red first."""
    search: Pixels
    """(S, S, 3) uint8, red first."""
    box_cxcywh: NDArray[np.float64]
    """(4,) the target in [0, 1] of the search crop; its centre lies inside."""
    template_box_cxcywh: NDArray[np.float64]
    """(4,) the target in [0, 1] of the template crop, in its middle."""


class ClipImages:
    """Decodes the windows of a clip, each at most once."""

    def __init__(self, clip: StoredClip) -> None:
        self.clip = clip
        self._decoded: dict[int, Pixels] = {}

    def __getitem__(self, index: int) -> Pixels:
        if index not in self._decoded:
            self._decoded[index] = decode(self.clip.jpegs[index], self.clip.name(index))
        return self._decoded[index]


def draw_pair(
    images: ClipImages,
    data: DataConfig,
    model: ModelConfig,
    rng: np.random.Generator,
    *,
    augment: bool,
) -> Pair:
    """Draw a pair from a clip.

    Args:
        images: The clip, with at least one visible frame.
        data: Jitter and augmentation.
        model: Sizes and factors of the crops.
        rng: Source of all chance; the same state gives the same pair.
        augment: Change colours and mirror; validation does not.

    Raises:
        DataError: A stored window does not decode.
    """
    clip = images.clip
    first, second = choose_frames(clip, data.max_gap, rng)
    box = clip.boxes_xywh[first]
    template_side = max(1.0, crop_side(box, model.template_factor))
    template = crop(images[first], centre(box), template_side, model.template_size)
    in_template = box_to_crop(box, centre(box), template_side)
    box, image = clip.boxes_xywh[second], images[second]
    centre_xy, side = jitter(box, image.shape[:2], data, model.search_factor, rng)
    search = crop(image, centre_xy, side, model.search_size)
    target = box_to_crop(box, centre_xy, side)
    if not augment:
        return Pair(template, search, target, in_template)
    if rng.random() < data.grayscale_prob:
        template, search = _grey(template), _grey(search)
    # OSTrack mirrors both together, and then each alone.
    together = rng.random() < data.flip
    template = _brighter(template, data.brightness, rng)
    search = _brighter(search, data.brightness, rng)
    if together != (rng.random() < data.flip):
        template = cv2.flip(template, 1)  # type: ignore[assignment]
    if together != (rng.random() < data.flip):
        search = cv2.flip(search, 1)  # type: ignore[assignment]
        target[0] = 1.0 - target[0]
    return Pair(template, search, target, in_template)


def choose_frames(clip: StoredClip, max_gap: int, rng: np.random.Generator) -> tuple[int, int]:
    """Choose a visible frame and a later visible one at most ``max_gap`` frames away.

    All such couples are equally likely (our choice). A clip without one, such as a still image,
    pairs a visible frame with itself.

    Returns:
        Positions in the clip of template and search frame.
    """
    visible = np.flatnonzero(clip.visible & usable_boxes(clip.boxes_xywh))
    numbers = clip.frames[visible]
    gaps = numbers[None, :] - numbers[:, None]
    earlier, later = np.nonzero((gaps > 0) & (gaps <= max_gap))
    if len(earlier) == 0:
        only = int(visible[rng.integers(len(visible))])
        return only, only
    couple = int(rng.integers(len(earlier)))
    return int(visible[earlier[couple]]), int(visible[later[couple]])


def jitter(
    box_xywh: NDArray[np.float64],
    shape: tuple[int, int],
    data: DataConfig,
    factor: float,
    rng: np.random.Generator,
) -> tuple[tuple[float, float], float]:
    """Move and scale a search region.

    The side is multiplied by exp(N(0, 1) scale_jitter) and the centre moves by
    sqrt(w h) centre_jitter (U(0, 1) - 0.5). A region smaller than 1 px, one that misses the
    image, or (our choice) one that loses the target's centre is drawn again; the last resort
    is no jitter. The normal number is cut at two deviations, which the stored window is made for.

    Args:
        box_xywh: (4,) pixels of the image.
        shape: Height and width of the image.
        data: The jitter.
        factor: Side of the region over the square root of the target's area.
        rng: Source of chance.

    Returns:
        Centre and side of the region in pixels of the image.
    """
    x, y = centre(box_xywh)
    root = math.sqrt(float(box_xywh[2]) * float(box_xywh[3]))
    plain = max(1.0, crop_side(box_xywh, factor))
    for _ in range(_TRIES):
        deviation = float(np.clip(rng.standard_normal(), -JITTER_LIMIT, JITTER_LIMIT))
        dx, dy = (rng.random(2) - 0.5) * root * data.centre_jitter
        side = math.ceil(root * factor * math.exp(deviation * data.scale_jitter))
        half = 0.5 * side
        keeps_target = abs(dx) < half and abs(dy) < half
        meets_image = -half < x + dx < shape[1] + half and -half < y + dy < shape[0] + half
        if side >= 1 and keeps_target and meets_image:
            return (x + float(dx), y + float(dy)), float(side)
    return (x, y), plain


def _grey(pixels: Pixels) -> Pixels:
    one = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return cv2.cvtColor(one, cv2.COLOR_GRAY2RGB)  # type: ignore[return-value]


def _brighter(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    factor = float(rng.uniform(max(0.0, 1 - amount), 1 + amount))
    return cv2.convertScaleAbs(pixels, alpha=factor)  # type: ignore[return-value]

"""What is believed of a target, and where to look for it when it is lost."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dytrack_model.config import ModelConfig, require
from dytrack_model.crops import box_from_crop, centre, clip_box, crop, crop_side
from dytrack_model.exits.heads import hann_window
from dytrack_model.runtime.engine import Engine, Tensors, Work, locating, stage
from dytrack_model.target_state import (
    Looks,
    StateConfig,
    StateMachine,
    TargetState,
    keep_inside,
    looks,
)

Box = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Region:
    """What is cut around a target, the whole search region or its middle, and how it is read."""

    config: ModelConfig
    """Its sizes and its factor."""
    window: Tensor
    """(H, W) weights of its score map."""


def regions(config: ModelConfig, hann: float, *, narrow: bool) -> tuple[Region, ...]:
    """Return the search region of a tracker and, where there is one, the narrow one.

    Args:
        config: The tracker's.
        hann: Strength of the Hann window.
        narrow: Whether there must be a narrow one.

    Raises:
        ConfigurationError: There has to be one, and there is none.
    """
    require(
        config.narrow_size > 0 or not narrow,
        "operating point: looks at the narrow search region, and this tracker has none "
        "(model.narrow_size is 0); choose another",
    )
    views = (config, config.narrowed()) if config.narrow_size else (config,)
    return tuple(Region(view, hann_window(view.map_size, hann)) for view in views)


@dataclass(frozen=True, slots=True)
class Search:
    """A search crop and where it was cut."""

    pixels: NDArray[np.uint8]
    region: Region
    around: tuple[float, float]
    side: float
    template_state: Tensors

    @classmethod
    def cut(
        cls, image: NDArray[np.uint8], box_xywh: Box, region: Region, template_state: Tensors
    ) -> "Search":
        """Cut a region around a box (4,) in a frame (H, W, 3)."""
        config, around = region.config, centre(box_xywh)
        side = max(1.0, crop_side(box_xywh, config.search_factor))
        pixels = crop(image, around, side, config.search_size)
        return cls(pixels, region, around, side, template_state)

    def in_frame(self, box_cxcywh: Sequence[float]) -> Box:
        """Map a box (4,) from the crop ([0, 1]) into the frame: ``x, y, w, h`` in pixels."""
        return box_from_crop(box_cxcywh, self.around, self.side)


class Belief:
    """The state of a target, and the box that is given for it.

    Args:
        config: The thresholds.
        box_xywh: (4,) where the target certainly is.
        size: Width and height of the frames.
    """

    def __init__(self, config: StateConfig, box_xywh: Box, size: tuple[int, int]) -> None:
        self._machine, self._size = StateMachine(config), size
        self._sure_xywh = clip_box(box_xywh, *size)
        self._candidate = (0.0, 0.0)

    @property
    def state(self) -> TargetState:
        """The last frame's."""
        return self._machine.state

    def resize(self, size: tuple[int, int]) -> None:
        """Go on in frames of another width and height."""
        self._size = size
        self._sure_xywh = clip_box(self._sure_xywh, *size)

    def follow(self, box_xywh: Box, predicted_iou: float, before: Box) -> Box:
        """Take in a frame that was not lost before it.

        Args:
            box_xywh: (4,) what was found.
            predicted_iou: Of that box.
            before: (4,) the last frame's box.

        Returns:
            (4,) the box to give.
        """
        state = self._machine.update(predicted_iou)
        if state is TargetState.TRACKING:
            self._sure_xywh = box_xywh.copy()
            return box_xywh
        # The size is frozen; the centre follows until the target is lost.
        return self._sure_at(centre(before if state is TargetState.LOST else box_xywh))

    def plan(self, factor: float) -> tuple[Looks, bool]:
        """Plan the search of a lost target.

        Args:
            factor: Side of a search crop over that of the target.

        Returns:
            The crops, and whether one of them is expected to have the target in its middle.
        """
        machine, side = self._machine, max(1.0, crop_side(self._sure_xywh, factor))
        if machine.confirmed:
            return Looks((self._candidate,), side), True
        around, most = centre(self._sure_xywh), machine.config.most_crops
        return looks(around, side, machine.widening, self._size, machine.lost_frames, most), False

    def weigh(self, box_xywh: Box, predicted_iou: float, before: Box) -> Box:
        """Take in the best that a search found; arguments and result as of :meth:`follow`."""
        if self._machine.update(predicted_iou) is TargetState.FOUND_AGAIN:
            self._sure_xywh = clip_box(box_xywh, *self._size)
            return self._sure_xywh.copy()
        if not self._machine.confirmed:
            return before
        # Not believed yet: its place, and the size that was last believed.
        given = self._sure_at(centre(box_xywh))
        self._candidate = centre(given)
        return given

    def _sure_at(self, place: tuple[float, float]) -> Box:
        """Return the last reliable box moved to a place, or as near as the frame allows."""
        width, height = self._sure_xywh[2:].tolist()
        x, y = keep_inside(place, (width, height), self._size)
        return np.array([x - 0.5 * width, y - 0.5 * height, width, height])


class Seeker:
    """Searches frames for one target at full depth; keeps its template.

    Args:
        engine: The runtime. Where it takes any batch, the crops of a frame are one.
        template: The target's template crop, (T, T, 3) uint8 RGB.
        inside: (4,) the target in [0, 1] of it.
    """

    def __init__(self, engine: Engine, template: NDArray[np.uint8], inside: Box) -> None:
        self._engine, self._template, self._inside = engine, template, inside
        self._embedded: tuple[int, Tensors] = (0, {})

    def searching(
        self, image: NDArray[np.uint8], plan: Looks, window: Tensor | None
    ) -> Work[tuple[Box, float]]:
        """Find, call by call, the box with the highest predicted IoU among all crops.

        Args:
            image: The frame, (H, W, 3) uint8 RGB.
            plan: The crops.
            window: (H, W) weights of each crop's score map.

        Returns:
            (4,) pixels of the frame, not clipped, and the predicted IoU.
        """
        engine, last = self._engine, self._engine.exit_count - 1
        found: list[tuple[float, Box]] = []
        batch = len(plan.centres) if engine.any_batch else 1
        for first in range(0, len(plan.centres), batch):
            places = plan.centres[first : first + batch]
            crops = [crop(image, place, plan.side, engine.config.search_size) for place in places]
            state = yield from self._template_states(len(places))
            tensors = engine.begin(np.stack(crops), state)
            for exit_index in range(engine.exit_count):
                yield stage(exit_index, tensors)
            boxes = yield from locating(engine, last, tensors, window)
            said = engine.decide(last, tensors).tolist()
            for place, box, predicted_iou in zip(places, boxes, said, strict=True):
                found.append((predicted_iou, box_from_crop(box, place, plan.side)))
        predicted_iou, box_xywh = max(found, key=lambda one: one[0])
        return box_xywh, predicted_iou

    def _template_states(self, count: int) -> Work[Tensors]:
        """Return the template state for a batch; that of the last size is kept."""
        if self._embedded[0] != count:
            template, inside = (self._template,) * count, (self._inside,) * count
            state = yield from self._engine.embedding(np.stack(template), np.stack(inside))
            self._embedded = (count, state)
        return self._embedded[1]

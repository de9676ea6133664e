"""Follow one target through a video: ``start(image, box)``, then ``step(image)`` for each frame."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dytrack_model.crops import box_from_crop, centre, clip_box, crop, crop_side
from dytrack_model.errors import BoxError, ImageError
from dytrack_model.heads import read_boxes
from dytrack_model.images import RGB
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import Policy, Thresholds
from dytrack_model.runtime.engine import Engine, Tensors
from dytrack_model.runtime.torch_engine import TorchEngine


@dataclass(frozen=True, kw_only=True, slots=True)
class Track:
    """Where the target is in one frame, and how that was found."""

    box_xywh: NDArray[np.float64]
    """(4,) pixels of the frame."""
    predicted_iou: float
    """The decisioner's estimate of the box's IoU, in [0, 1]: the tracker's confidence."""
    exit: int
    """Index of the exit that gave the box, from 0."""
    lost: bool
    """Whether the predicted IoU is below ``lost_below``."""
    network_ms: float
    """Time spent in the network, without crop and mapping."""


class Tracker:
    """The online tracker. One object follows one target.

    Args:
        network: The network, which then runs in PyTorch, or an engine of any runtime.
        policy: When to stop; full depth by default.
        device: Where a network runs; an engine knows its own.
        hann: Strength of the Hann window on the score map in [0, 1]; 1 multiplies the scores
            by the window (OSTrack), 0 leaves them alone.
        lost_below: Predicted IoU under which a frame is called lost.
    """

    def __init__(
        self,
        network: DyTrackNetwork | Engine,
        policy: Policy | None = None,
        *,
        device: str | torch.device = "cpu",
        hann: float = 1.0,
        lost_below: float = 0.2,
    ) -> None:
        if isinstance(network, DyTrackNetwork):
            network = TorchEngine(network, device=device)
        self.engine: Engine = network
        self.policy = policy or Thresholds((float("inf"),) * (self.engine.exit_count - 1))
        self._lost_below = lost_below
        self._window = _hann_window(self.engine.config.map_size, hann)
        self._kept: Tensors | None = None
        self._box_xywh = np.zeros(4)
        self._frame_size = (0, 0)

    @property
    def box_xywh(self) -> NDArray[np.float64]:
        """(4,) the last box in pixels."""
        return self._box_xywh.copy()

    def start(self, image: RGB | str | Path, box_xywh: Sequence[float]) -> None:
        """Take the target from the first frame.

        Args:
            image: The frame, or the path of an image file.
            box_xywh: The target's box in pixels.

        Raises:
            ImageError: The image is not an :class:`RGB`, or the file does not decode.
            BoxError: The box has NaN, no area, or lies outside the image.
        """
        frame = _as_rgb(image)
        box = _check_box(box_xywh, frame.size)
        config = self.engine.config
        side = crop_side(box, config.template_factor)
        template = crop(frame.pixels, centre(box), side, config.template_size)
        self._kept = self.engine.embed_template(template[None])
        self._box_xywh = box
        self._frame_size = frame.size
        self.policy.begin_target()

    def move_to(self, box_xywh: Sequence[float]) -> None:
        """Say where the target is now, as a detector might; the template stays.

        Args:
            box_xywh: The target's box in pixels; the next search region is cut around it.

        Raises:
            ImageError: ``start`` was not called.
            BoxError: The box has NaN, no area, or lies outside the image.
        """
        if self._kept is None:
            raise ImageError("move_to() needs a target: call start(image, box) first")
        self._box_xywh = _check_box(box_xywh, self._frame_size)

    def step(self, image: RGB | str | Path) -> Track:
        """Find the target in the next frame.

        Raises:
            ImageError: ``start`` was not called, the image is not an :class:`RGB`, or its size
                differs from the first frame's.
        """
        search = self._search(image)
        # Go through the exits until the policy says stop.
        began = time.perf_counter()
        box_cxcywh, predicted_iou, exit_index = self.infer(search.pixels[None], search.kept)
        network_ms = (time.perf_counter() - began) * 1e3
        # Map the box back into the frame.
        track = self._track(search, box_cxcywh, predicted_iou, exit_index, network_ms)
        self._box_xywh = track.box_xywh.copy()
        return track

    def step_all(self, image: RGB | str | Path) -> tuple[Track, ...]:
        """Find the target at every exit, shallow to deep, and follow the deepest; no policy.

        For choosing thresholds and for baselines; errors as :meth:`step`. Each exit's time is
        that of its whole route.
        """
        search = self._search(image)
        tensors = self.engine.begin(search.pixels[None], search.kept)
        tracks = []
        network_ms = 0.0
        for exit_index in range(self.engine.exit_count):
            began = time.perf_counter()
            self.engine.advance(exit_index, tensors)
            predicted_iou = float(self.engine.decide(exit_index, tensors)[0])
            network_ms += (time.perf_counter() - began) * 1e3
            began = time.perf_counter()
            box_cxcywh = self._read(exit_index, tensors)
            head_ms = (time.perf_counter() - began) * 1e3
            ms = network_ms + head_ms
            tracks.append(self._track(search, box_cxcywh, predicted_iou, exit_index, ms))
        self._box_xywh = tracks[-1].box_xywh.copy()
        return tuple(tracks)

    def infer(self, search: NDArray[np.uint8], kept: Tensors) -> tuple[list[float], float, int]:
        """Run one search crop (1, S, S, 3) through the exits until the policy says stop.

        Returns:
            The box ``cx, cy, w, h`` in [0, 1] of the crop, its predicted IoU, and the exit.
        """
        engine, policy = self.engine, self.policy
        policy.begin_frame()
        tensors = engine.begin(search, kept)
        last = engine.exit_count - 1
        for exit_index in range(engine.exit_count):
            engine.advance(exit_index, tensors)
            if exit_index == last:
                break
            # A GPU would have to finish the stage first, so only policies that look are told.
            score = float(engine.decide(exit_index, tensors)[0]) if policy.reads_score else 0.0
            if policy.leave(exit_index, score):
                break
        box_cxcywh = self._read(exit_index, tensors)
        return box_cxcywh, float(engine.decide(exit_index, tensors)[0]), exit_index

    def _search(self, image: RGB | str | Path) -> "_Search":
        """Cut the search region around the last box."""
        frame = _as_rgb(image)
        if self._kept is None:
            raise ImageError("step() needs a target: call start(image, box) with the first frame")
        if frame.size != self._frame_size:
            raise ImageError(
                f"frame of {frame.size[0]}x{frame.size[1]} after frames of "
                f"{self._frame_size[0]}x{self._frame_size[1]}: one sequence has one frame size; "
                "call start() again after a change"
            )
        config = self.engine.config
        around = centre(self._box_xywh)
        side = max(1.0, crop_side(self._box_xywh, config.search_factor))
        pixels = crop(frame.pixels, around, side, config.search_size)
        return _Search(pixels, around, side, self._kept)

    @torch.inference_mode()
    def _read(self, exit_index: int, tensors: Tensors) -> list[float]:
        """Run an exit's head and read its box in [0, 1] of the crop, ``cx, cy, w, h``."""
        boxes = read_boxes(self.engine.locate(exit_index, tensors), self._window)
        return boxes[0].tolist()

    def _track(
        self,
        search: "_Search",
        box_cxcywh: Sequence[float],
        predicted_iou: float,
        exit_index: int,
        network_ms: float,
    ) -> Track:
        """Map a box back into the frame."""
        box = box_from_crop(box_cxcywh, search.around, search.side)
        return Track(
            box_xywh=clip_box(box, *self._frame_size),
            predicted_iou=predicted_iou,
            exit=exit_index,
            lost=predicted_iou < self._lost_below,
            network_ms=network_ms,
        )


@dataclass(frozen=True, slots=True)
class _Search:
    """A search crop and where it was cut."""

    pixels: NDArray[np.uint8]
    around: tuple[float, float]
    side: float
    kept: Tensors


def _hann_window(size: int, strength: float) -> Tensor:
    """Give (H, W) weights: a Hann window mixed with ones."""
    # A periodic window of size + 2 without its zero ends, so that no cell is ruled out.
    ramp = torch.hann_window(size + 2, periodic=False)[1:-1]
    return (1 - strength) + strength * torch.outer(ramp, ramp)


def _as_rgb(image: RGB | str | Path) -> RGB:
    if isinstance(image, RGB):
        return image
    if isinstance(image, str | Path):
        return RGB.open(image)
    raise ImageError(
        f"expected an RGB image or a file, got {type(image).__name__}: wrap an array as "
        "RGB(array) if red comes first, or RGB.from_bgr(array) if OpenCV read it"
    )


def _check_box(box_xywh: Sequence[float], size: tuple[int, int]) -> NDArray[np.float64]:
    try:
        box = np.asarray(box_xywh, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BoxError(f"a box is four numbers x, y, w, h; got {box_xywh!r}") from error
    if box.shape != (4,):
        raise BoxError(f"a box is four numbers x, y, w, h; got shape {box.shape}")
    shown = ", ".join(f"{value:g}" for value in box)
    if not np.isfinite(box).all():
        raise BoxError(f"box ({shown}) holds NaN or infinity; give x, y, w, h in pixels")
    if box[2] <= 0 or box[3] <= 0:
        raise BoxError(f"box ({shown}) has no area: width and height must be positive")
    width, height = size
    if box[0] >= width or box[1] >= height or box[0] + box[2] <= 0 or box[1] + box[3] <= 0:
        raise BoxError(f"box ({shown}) lies outside the image of {width}x{height} pixels")
    return box

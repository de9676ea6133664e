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
from dytrack_model.recycling import Carry


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
        network: The network; it is put into evaluation mode.
        policy: When to stop; full depth by default.
        device: Where the network runs.
        hann: Strength of the Hann window on the score map in [0, 1]; 1 multiplies the scores
            by the window (OSTrack), 0 leaves them alone.
        lost_below: Predicted IoU under which a frame is called lost.
    """

    def __init__(
        self,
        network: DyTrackNetwork,
        policy: Policy | None = None,
        *,
        device: str | torch.device = "cpu",
        hann: float = 1.0,
        lost_below: float = 0.2,
    ) -> None:
        self.network = network.to(device).eval()
        self.policy = policy or Thresholds((float("inf"),) * (network.exit_count - 1))
        self._device = torch.device(device)
        self._lost_below = lost_below
        self._window = _hann_window(network.config.map_size, hann).to(self._device)
        self._template_state: Tensor | None = None
        self._box_xywh = np.zeros(4)
        self._frame_size = (0, 0)

    @property
    def box_xywh(self) -> NDArray[np.float64]:
        """(4,) the last box in pixels."""
        return self._box_xywh.copy()

    @torch.inference_mode()
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
        config = self.network.config
        side = crop_side(box, config.template_factor)
        template = crop(frame.pixels, centre(box), side, config.template_size)
        self._template_state = self.network.embed_template(self._tensor(template))
        self._box_xywh = box
        self._frame_size = frame.size

    @torch.inference_mode()
    def step(self, image: RGB | str | Path) -> Track:
        """Find the target in the next frame.

        Raises:
            ImageError: ``start`` was not called, the image is not an :class:`RGB`, or its size
                differs from the first frame's.
        """
        frame = _as_rgb(image)
        state = self._template_state
        if state is None:
            raise ImageError("step() needs a target: call start(image, box) with the first frame")
        if frame.size != self._frame_size:
            raise ImageError(
                f"frame of {frame.size[0]}x{frame.size[1]} after frames of "
                f"{self._frame_size[0]}x{self._frame_size[1]}: one sequence has one frame size; "
                "call start() again after a change"
            )
        # Cut the search region around the last box.
        config = self.network.config
        around = centre(self._box_xywh)
        side = max(1.0, crop_side(self._box_xywh, config.search_factor))
        search = crop(frame.pixels, around, side, config.search_size)
        # Go through the exits until the policy says stop.
        began = time.perf_counter()
        box_cxcywh, predicted_iou, exit_index = self.infer(self._tensor(search), state)
        network_ms = (time.perf_counter() - began) * 1e3
        # Map the box back into the frame.
        box = box_from_crop(box_cxcywh, around, side)
        self._box_xywh = clip_box(box, *frame.size)
        return Track(
            box_xywh=self.box_xywh,
            predicted_iou=predicted_iou,
            exit=exit_index,
            lost=predicted_iou < self._lost_below,
            network_ms=network_ms,
        )

    def infer(self, search: Tensor, state: Tensor) -> tuple[list[float], float, int]:
        """Run one search crop (1, 3, S, S) through the exits until the policy says stop.

        Returns:
            The box ``cx, cy, w, h`` in [0, 1] of the crop, its predicted IoU, and the exit.
        """
        network, policy = self.network, self.policy
        policy.begin_frame()
        tokens = network.embed_search(search, state)
        carry: Carry | None = None
        score: float | None = None
        last = network.exit_count - 1
        for exit_index in range(network.exit_count):
            tokens = network.advance(exit_index, tokens, state)
            carry = network.recycle(exit_index, network.read(exit_index, tokens), carry)
            # The exit that is taken always says how sure it is; a refused one only if asked.
            asked = exit_index < last and policy.reads_score
            score = float(network.decide(exit_index, carry)) if asked else None
            if exit_index == last or policy.leave(exit_index, score or 0.0):
                break
        assert carry is not None  # there is at least one exit
        boxes = read_boxes(network.locate(exit_index, carry), self._window)
        if score is None:
            score = float(network.decide(exit_index, carry))
        return boxes[0].tolist(), score, exit_index

    def _tensor(self, pixels: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(pixels).permute(2, 0, 1)[None].to(self._device)


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

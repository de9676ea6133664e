"""Render crops on the device: pictures, things laid over them, and what cameras do to light.

Dimensions: N crops, S side of a crop.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dytrack_platform.datasets.resident.store import PictureStore

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Put = Callable[[NDArray[np.generic]], Tensor]
"""Takes an array to the device."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Things laid over some of the crops, one for each."""

    rows: Integers
    """(K,) crops."""
    cut_outs: Integers
    """(K,) pictures with silhouettes."""
    matrices: Floats
    """(K, 2, 3) from a crop's pixel to the thing's."""
    gains: Floats
    """(K, 3) factors on red, green and blue."""


@dataclass(frozen=True, slots=True)
class Light:
    """What light and camera do to each crop."""

    gains: Floats
    """(N, 3) factors on red, green and blue."""
    contrasts: Floats
    """(N,) factor on the distance from the crop's mean."""
    greys: NDArray[np.bool_]
    """(N,) without colour."""
    coarse: Floats
    """(N,) share of the resolution that is left, in (0, 1]."""
    smears: Floats
    """(N, 2) direction and length of motion blur in pixels of the crop."""
    grain: Floats
    """(N,) standard deviation of noise in grey levels."""


@dataclass(frozen=True, slots=True)
class View:
    """One side of B pairs: the crops to render, and where the target is in them."""

    pictures: Integers
    matrices: Floats
    layers: tuple[Layer, ...]
    light: Light
    boxes_cxcywh: Floats
    """(B, 4) in [0, 1] of the crop."""


@torch.no_grad()
def crops(
    pictures: PictureStore,
    cut_outs: PictureStore | None,
    index: Integers,
    matrices: Floats,
    size: int,
    layers: Sequence[Layer],
    light: Light,
    seed: int,
    noisy_of: tuple[int, int] | None = None,
) -> Tensor:
    """Render a batch.

    Args:
        pictures: Where the ground of each crop comes from.
        cut_outs: Things with silhouettes, where there are layers.
        index: (N,) picture of each crop.
        matrices: (N, 2, 3) from its pixels to the picture's.
        size: S.
        layers: What is laid over it, bottom to top.
        light: What happens to the light.
        seed: Seed of the noise.
        noisy_of: Where the crops are a worker's part of a batch: how many crops with noise the
            batch has before them, and in all. The noise is then that of the whole batch.

    Returns:
        (N, 3, S, S) uint8, red first.
    """
    device = pictures.pixels.device

    def put(values: NDArray[np.generic]) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        return tensor.to(device, non_blocking=True)

    drawn = pictures.crops(put(index), put(matrices), size)
    for layer in layers:
        if len(layer.rows) == 0 or cut_outs is None:
            continue
        rows = put(layer.rows)
        above = cut_outs.crops(put(layer.cut_outs), put(layer.matrices), size)
        alpha = above[..., 3:] / 255
        # Sampling multiplied the colour by nothing: outside of its picture both are 0.
        colour = (above[..., :3] * put(layer.gains)[:, None, None]).clamp(max=255)
        drawn[rows] = colour * alpha + drawn[rows] * (1 - alpha)
    drawn = drawn.permute(0, 3, 1, 2)
    drawn = _coarser(drawn, light.coarse, put)
    drawn = _smeared(drawn, light.smears, put)
    means = drawn.mean(dim=(1, 2, 3), keepdim=True)
    contrasts, gains = put(light.contrasts)[:, None, None, None], put(light.gains)[..., None, None]
    drawn = ((drawn - means) * contrasts + means) * gains
    grey = (drawn * drawn.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    drawn = torch.where(put(light.greys)[:, None, None, None], grey, drawn)
    noisy = np.flatnonzero(light.grain > 0)
    if len(noisy):
        generator = torch.Generator(device).manual_seed(seed)
        rows = put(noisy)
        before, total = noisy_of or (0, len(noisy))
        noise = torch.randn((total, 3, size, size), generator=generator, device=device)
        noise = noise[before : before + len(noisy)]
        drawn[rows] = drawn[rows] + noise * put(light.grain[noisy])[:, None, None, None]
    return drawn.clamp(0, 255).round().to(torch.uint8)


def _coarser(drawn: Tensor, shares: Floats, put: Put) -> Tensor:
    """Throw away resolution, in four steps: crops of one step are resampled together."""
    size = drawn.shape[-1]
    steps = np.round(shares * 5).clip(1, 5).astype(int)
    for step in range(1, 5):
        rows = np.flatnonzero(steps == step)
        if len(rows):
            side = max(8, round(size * step / 5))
            chosen = put(rows)
            small = F.interpolate(drawn[chosen], (side, side), mode="bilinear", antialias=True)
            drawn[chosen] = F.interpolate(small, (size, size), mode="bilinear")
    return drawn


def _smeared(drawn: Tensor, smears: Floats, put: Put) -> Tensor:
    """Average crops along a line, as a moving camera does."""
    lengths = np.hypot(smears[:, 0], smears[:, 1])
    rows = np.flatnonzero(lengths >= 1.5)
    if len(rows) == 0:
        return drawn
    reach = 7
    axis = np.arange(-reach, reach + 1)
    along = np.linspace(-0.5, 0.5, 2 * reach + 1)[None, :, None, None]
    # Each kernel is the sum of bilinear points on the line.
    x = smears[rows, 0][:, None, None, None] * along
    y = smears[rows, 1][:, None, None, None] * along
    near_x = np.clip(1 - np.abs(axis[None, None, None, :] - x), 0, None)
    near_y = np.clip(1 - np.abs(axis[None, None, :, None] - y), 0, None)
    kernels = (near_x * near_y).sum(axis=1)
    kernels /= kernels.sum(axis=(1, 2), keepdims=True)
    weights = put(kernels).repeat_interleave(3, dim=0)[:, None]
    chosen = put(rows)
    padded = F.pad(drawn[chosen], (reach,) * 4, mode="replicate")
    flat = padded.reshape(1, -1, *padded.shape[-2:])
    smeared = F.conv2d(flat, weights, groups=weights.shape[0])
    drawn[chosen] = smeared.reshape(len(rows), 3, *drawn.shape[-2:])
    return drawn

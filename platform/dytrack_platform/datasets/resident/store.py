"""Pictures of any size in one flat tensor, and crops of them by the batch.

Dimensions: N crops, S side of a crop, C channels, P pixels of all pictures together.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dytrack_platform.datasets.sequence import Pixels


@dataclass(frozen=True, slots=True)
class PictureStore:
    """Pictures one after the other, each row by row."""

    pixels: Tensor
    """(P, C) uint8 on the device."""
    offsets: Tensor
    """(M,) int64: where each of M pictures begins."""
    heights: Tensor
    """(M,) int64."""
    widths: Tensor
    """(M,) int64."""

    def __len__(self) -> int:
        return len(self.offsets)

    def crops(self, index: Tensor, matrices: Tensor, size: int) -> Tensor:
        """Resample squares of pictures bilinearly; what lies outside of a picture is 0.

        The same sampling as :func:`dytrack_model.crops.crop`: what training sees is what tracking
        sees. On a processor OpenCV does it; its weights are rounded to 1/32, so a pixel differs
        by some grey levels from what a graphics card computes.

        Args:
            index: (N,) pictures.
            matrices: (N, 2, 3) float32 that take the centre of a crop's pixel (u, v) to a place
                in the picture, both counted from the centre of the first pixel.
            size: Side of the crops.

        Returns:
            (N, S, S, C) float32 in [0, 255].
        """
        if self.pixels.device.type == "cpu":
            return self._crops_by_opencv(index, matrices, size)
        return self._crops_by_taps(index, matrices, size)

    def _crops_by_taps(self, index: Tensor, matrices: Tensor, size: int) -> Tensor:
        axis = torch.arange(size, device=self.pixels.device, dtype=torch.float32)
        m = matrices[:, :, :, None, None]
        x = m[:, 0, 0] * axis[None, None] + m[:, 0, 1] * axis[None, :, None] + m[:, 0, 2]
        y = m[:, 1, 0] * axis[None, None] + m[:, 1, 1] * axis[None, :, None] + m[:, 1, 2]
        left, top = x.floor(), y.floor()
        right_share, bottom_share = x - left, y - top
        column, row = left.long(), top.long()
        width, height, offset = (
            values[index][:, None, None] for values in (self.widths, self.heights, self.offsets)
        )
        total: Tensor | None = None
        for down in (0, 1):
            for across in (0, 1):
                share = (right_share if across else 1 - right_share) * (
                    bottom_share if down else 1 - bottom_share
                )
                i, j = row + down, column + across
                inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
                place = torch.where(inside, offset + i * width + j, 0)
                tap = self.pixels[place].float() * (share * inside)[..., None]
                total = tap if total is None else total + tap
        assert total is not None  # four taps were added
        return total

    def _crops_by_opencv(self, index: Tensor, matrices: Tensor, size: int) -> Tensor:
        drawn = np.empty((len(index), size, size, self.pixels.shape[1]), np.float32)
        pixels = self.pixels.numpy()
        for number, (picture, matrix) in enumerate(
            zip(index.tolist(), matrices.double().numpy(), strict=True)
        ):
            begin, height, width = (
                int(values[picture]) for values in (self.offsets, self.heights, self.widths)
            )
            whole = pixels[begin : begin + height * width].reshape(height, width, -1)
            drawn[number] = cv2.warpAffine(
                whole,
                matrix,
                (size, size),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_CONSTANT,
            )
        return torch.from_numpy(drawn)


def build(pictures: Iterable[Pixels], device: torch.device) -> PictureStore:
    """Put pictures, (H, W, C) uint8 of one C, on a device."""
    kept: list[Tensor] = []
    shapes: list[tuple[int, int]] = []
    for picture in pictures:
        height, width, channels = picture.shape
        shapes.append((height, width))
        kept.append(torch.from_numpy(np.ascontiguousarray(picture)).reshape(-1, channels))
    sizes = np.array([h * w for h, w in shapes], dtype=np.int64)
    channels = kept[0].shape[1] if kept else 3
    pixels = torch.empty((int(sizes.sum()), channels), dtype=torch.uint8, device=device)
    begin = 0
    for number, (size, flat) in enumerate(zip(sizes.tolist(), kept, strict=True)):
        pixels[begin : begin + size] = flat.to(device)
        kept[number] = torch.empty(0)  # lets go of the host's copy: twice all may not fit
        begin += size
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]]) if len(sizes) else sizes
    return PictureStore(
        pixels,
        torch.from_numpy(offsets.astype(np.int64)).to(device),
        torch.tensor([h for h, _ in shapes], dtype=torch.int64, device=device),
        torch.tensor([w for _, w in shapes], dtype=torch.int64, device=device),
    )


def square_crops(
    boxes_xywh: NDArray[np.float64], factor: float | NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sides (N,) and centres (N, 2) of crops around boxes (N, 4), in pixels.

    Args:
        boxes_xywh: (N, 4) in pixels.
        factor: Side of a crop over the root of its box's area, or (N,) of each. The rule is that
            of :func:`~dytrack_model.crops.crop_side`.
    """
    roots = np.sqrt(boxes_xywh[:, 2] * boxes_xywh[:, 3])
    sides = np.maximum(1.0, np.ceil(roots * factor))
    return sides, boxes_xywh[:, :2] + 0.5 * boxes_xywh[:, 2:]


def square_matrices(
    centres: NDArray[np.float64], sides: NDArray[np.float64], size: int, mirrored: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return (N, 2, 3) matrices of squares of pictures, for :meth:`PictureStore.crops`.

    Args:
        centres: (N, 2) centre of each square in pixels, where pixel i covers [i, i + 1).
        sides: (N,) sides in pixels.
        size: Side of the crops.
        mirrored: (N,) whether left and right change places.
    """
    scale = sides / size
    matrices = np.zeros((len(sides), 2, 3))
    first = centres - 0.5 * sides[:, None] + 0.5 * scale[:, None] - 0.5
    matrices[:, 0, 0] = np.where(mirrored, -scale, scale)
    matrices[:, 1, 1] = scale
    matrices[:, 0, 2] = np.where(mirrored, first[:, 0] + scale * (size - 1), first[:, 0])
    matrices[:, 1, 2] = first[:, 1]
    return matrices

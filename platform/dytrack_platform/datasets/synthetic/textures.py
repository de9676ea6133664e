"""Textures and blobs: what synthetic targets, distractors and backgrounds are made of."""

import cv2
import numpy as np
from numpy.typing import NDArray

from dytrack_platform.datasets.sequence import Pixels

Mask = NDArray[np.uint8]


def palette(rng: np.random.Generator, colours: int = 4) -> NDArray[np.float32]:
    """Draw (colours, 3) colours in [0, 255] whose hues lie together, as on one object."""
    hue = rng.uniform(0, 180)
    hsv = np.stack(
        [
            (hue + rng.normal(0, 18, colours)) % 180,
            rng.uniform(40, 220, colours),
            rng.uniform(40, 245, colours),
        ],
        axis=1,
    )
    rgb = cv2.cvtColor(hsv[None].astype(np.uint8), cv2.COLOR_HSV2RGB)[0]
    return np.asarray(rgb, np.float32)


def _noise(rng: np.random.Generator, height: int, width: int, cell: float) -> NDArray[np.float32]:
    """Smooth noise in [0, 1] whose spots are about ``cell`` pixels wide."""
    rows, columns = max(2, int(height / cell) + 2), max(2, int(width / cell) + 2)
    grid = rng.random((rows, columns), np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]


def texture(
    rng: np.random.Generator,
    height: int,
    width: int,
    colours: NDArray[np.float32] | None = None,
    cell: float | None = None,
) -> Pixels:
    """Make a texture: spots of several sizes, sometimes with stripes, in one palette.

    Args:
        rng: Source of chance.
        height: Pixels.
        width: Pixels.
        colours: (N, 3) palette in [0, 255]; drawn when None.
        cell: Width of the largest spots in pixels; drawn when None.

    Returns:
        (height, width, 3) uint8.
    """
    colours = palette(rng) if colours is None else colours
    cell = float(rng.uniform(12, 60)) if cell is None else cell
    field = _noise(rng, height, width, cell)
    field += 0.5 * _noise(rng, height, width, cell / 3) + 0.3 * _noise(rng, height, width, cell / 9)
    if rng.random() < 0.4:
        angle, period = rng.uniform(0, np.pi), rng.uniform(0.4, 1.2) * cell
        y, x = np.mgrid[:height, :width].astype(np.float32)
        along = (x * np.cos(angle) + y * np.sin(angle)) / period
        field += 0.4 * (np.sin(2 * np.pi * along) > 0)
    low, high = float(field.min()), float(field.max())
    position = (field - low) / max(high - low, 1e-6) * (len(colours) - 1)
    index = np.minimum(position.astype(np.int32), len(colours) - 2)
    part = (position - index)[..., None]
    # Mostly flat patches with short transitions: edges, as objects have them.
    part = np.clip((part - 0.5) * 4 + 0.5, 0, 1)
    mixed = colours[index] * (1 - part) + colours[index + 1] * part
    return np.asarray(np.clip(mixed, 0, 255), np.uint8)


def blob(rng: np.random.Generator, side: int, aspect: float) -> Mask:
    """Make the silhouette of an object: a closed, wavy, sometimes two-lobed outline.

    Args:
        rng: Source of chance.
        side: Height and width of the result in pixels.
        aspect: Width over height of the silhouette.

    Returns:
        (side, side) uint8, 255 inside, smooth at the edge.
    """
    angle = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    radius = np.ones_like(angle)
    for wave in range(2, 6):
        radius += rng.uniform(0, 0.5 / wave) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    outline = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    outline -= 0.5 * (outline.max(axis=0) + outline.min(axis=0))
    outline /= np.abs(outline).max(axis=0)
    half = 0.46 * side * np.array([min(1.0, aspect), min(1.0, 1 / aspect)])
    points = np.round((outline * half + side / 2) * 16).astype(np.int32)
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [points], (255,), lineType=cv2.LINE_AA, shift=4)
    return mask


def cut_out(
    rng: np.random.Generator, side: int, aspect: float, colours: NDArray[np.float32]
) -> Pixels:
    """Make an object: a blob filled with a texture, with a second patch and a shade.

    Returns:
        (side, side, 4) uint8, red first, the last channel 255 inside of the object.
    """
    fill = texture(rng, side, side, colours, cell=side * float(rng.uniform(0.2, 0.5)))
    inner = blob(rng, side // 2, float(rng.uniform(0.6, 1.6)))
    y, x = (int(v) for v in rng.integers(side // 8, side // 2 - side // 8, 2))
    patch = texture(rng, side // 2, side // 2, palette(rng), cell=side * 0.2)
    part = fill[y : y + side // 2, x : x + side // 2]
    part[inner > 127] = patch[inner > 127]
    shade = np.linspace(rng.uniform(0.7, 1.0), rng.uniform(1.0, 1.2), side)[:, None, None]
    shaded = np.clip(fill * shade, 0, 255).astype(np.uint8)
    return np.dstack([shaded, blob(rng, side, aspect)])

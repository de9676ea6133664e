"""A synthetic sequence: what is in it, and the drawing of its frames."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dytrack_platform.datasets.sequence import Pixels
from dytrack_platform.datasets.synthetic.motion import Curve, Poses

_SPRITE_MARGIN = 0.25
"""Share of the drawn patch that deformation may push an object over its own square."""


@dataclass(frozen=True, slots=True)
class Thing:
    """An object that moves: the target, a distractor, or something that hides the target."""

    image: Pixels
    """(S, S, 4) uint8, the last channel its silhouette."""
    poses: Poses
    hides: bool = False
    """Drawn over the target instead of under it."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that a synthetic sequence shows; drawing it needs no chance but the grain's."""

    width: int
    height: int
    background: Pixels
    """(H, W, 3) uint8, larger than the image, so that the camera can move over it."""
    camera_x: Curve
    """Left edge of the view in the background, in pixels."""
    camera_y: Curve
    camera_zoom: Curve
    """Pixels of the background for one of the image."""
    target: Thing
    others: tuple[Thing, ...]
    blur: Curve
    """Length of motion blur in frames' worth of motion, 0 for none."""
    light: Curve
    """Factor on the brightness."""
    grain: float
    """Standard deviation of sensor noise in grey levels."""
    challenges: tuple[str, ...]
    """Codes of the challenges that were asked for."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One frame and what is true of it."""

    pixels: Pixels
    """(H, W, 3) uint8, red first."""
    box_xywh: tuple[float, float, float, float]
    """Extent of the target inside the image, hidden parts included; zeros when out of view."""
    cover: float
    """Share of the whole target that can be seen, in [0, 1]."""
    cut: bool
    """The image's border cuts the target."""


def draw(scene: Scene, rng: np.random.Generator) -> Iterator[Drawn]:
    """Draw the frames of a scene in order."""
    grain = rng.normal(0, scene.grain, (scene.height + 64, scene.width + 64, 3)).astype(np.int16)
    for frame in range(len(scene.light)):
        canvas = _view(scene, frame)
        near = [thing for thing in scene.others if _is_near(thing, frame, canvas)]
        for thing in near:
            if not thing.hides:
                _paint(canvas, *_patch(thing, frame))
        patch, corner = _patch(scene.target, frame)
        patch = _blurred(patch, scene, frame)
        _paint(canvas, patch, corner)
        hidden = np.zeros((scene.height, scene.width), np.uint8)
        for thing in near:
            if thing.hides:
                _paint(canvas, *_patch(thing, frame), covered=hidden)
        pixels = cv2.convertScaleAbs(canvas, alpha=float(scene.light[frame]))
        if scene.grain > 0:
            y, x = rng.integers(0, 64, 2)
            noise = grain[y : y + scene.height, x : x + scene.width]
            pixels = cv2.add(pixels, noise, dtype=cv2.CV_8U)
        box, cover, cut = _truth(patch[..., 3], corner, hidden)
        yield Drawn(pixels, box, cover, cut)  # type: ignore[arg-type]


def _view(scene: Scene, frame: int) -> Pixels:
    zoom = scene.camera_zoom[frame]
    matrix = np.array([[zoom, 0, scene.camera_x[frame]], [0, zoom, scene.camera_y[frame]]])
    return cv2.warpAffine(  # type: ignore[return-value]
        scene.background,
        matrix,
        (scene.width, scene.height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )


def _is_near(thing: Thing, frame: int, canvas: Pixels) -> bool:
    x, y, size = (float(c[frame]) for c in (thing.poses.x, thing.poses.y, thing.poses.size))
    height, width = canvas.shape[0], canvas.shape[1]
    return bool(-size < x < width + size and -size < y < height + size)


def _patch(thing: Thing, frame: int) -> tuple[Pixels, tuple[int, int]]:
    """Draw an object in its pose: (P, P, 4) and the patch's left and top in the image."""
    poses, side = thing.poses, thing.image.shape[0]
    size = max(float(poses.size[frame]), 4.0)
    reach = int(np.ceil(size * (0.5 * np.sqrt(2) + _SPRITE_MARGIN)))
    x, y = float(poses.x[frame]), float(poses.y[frame])
    left, top = int(np.floor(x)) - reach, int(np.floor(y)) - reach
    extent = 2 * reach + 1
    grid = np.arange(extent, dtype=np.float32)
    dx = (grid + np.float32(left + 0.5 - x))[None, :]
    dy = (grid + np.float32(top + 0.5 - y))[:, None]
    angle = poses.angle[frame]
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    stretch = np.sqrt(poses.stretch[frame])
    scale = side / size
    u = (cos * dx + sin * dy) * np.float32(scale / stretch)
    v = (cos * dy - sin * dx) * np.float32(scale * stretch)
    amplitude, phase = poses.wave[frame] * side, poses.phase[frame]
    if amplitude > 0:
        turn = np.float32(2 * np.pi / side)
        u, v = (
            u + np.float32(amplitude) * np.sin(v * turn + np.float32(phase)),
            v + np.float32(0.6 * amplitude) * np.sin(u * turn + np.float32(1.7 * phase)),
        )
    centre = np.float32(side / 2 - 0.5)
    image = cv2.remap(thing.image, u + centre, v + centre, cv2.INTER_LINEAR)
    return image, (left, top)  # type: ignore[return-value]


def _blurred(patch: Pixels, scene: Scene, frame: int) -> Pixels:
    """Smear a patch along the target's motion."""
    if scene.blur[frame] <= 0 or frame == 0:
        return patch
    poses = scene.target.poses
    dx, dy = (float(c[frame] - c[frame - 1]) * scene.blur[frame] for c in (poses.x, poses.y))
    length = round(max(abs(dx), abs(dy)))
    if length < 2:
        return patch
    kernel = np.zeros((length + 1, length + 1), np.float32)
    middle, bound = length / 2, length
    start = (round(middle - dx / 2), round(middle - dy / 2))
    end = (min(bound, round(middle + dx / 2)), min(bound, round(middle + dy / 2)))
    cv2.line(kernel, start, end, (1.0,), 1)
    return cv2.filter2D(patch, -1, kernel / kernel.sum())  # type: ignore[return-value]


def _paint(
    canvas: Pixels,
    patch: Pixels,
    corner: tuple[int, int],
    covered: NDArray[np.uint8] | None = None,
) -> None:
    """Lay a patch over the canvas; mark in ``covered`` what it hides."""
    height, width = canvas.shape[:2]
    left, top = corner
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = min(left + patch.shape[1], width), min(top + patch.shape[0], height)
    if x1 >= x2 or y1 >= y2:
        return
    inside = patch[y1 - top : y2 - top, x1 - left : x2 - left]
    alpha = inside[..., 3:].astype(np.float32) / 255
    part = canvas[y1:y2, x1:x2]
    part[:] = (inside[..., :3] * alpha + part * (1 - alpha)).astype(np.uint8)
    if covered is not None:
        covered[y1:y2, x1:x2][inside[..., 3] > 127] = 255


def _truth(
    alpha: NDArray[np.uint8], corner: tuple[int, int], hidden: NDArray[np.uint8]
) -> tuple[tuple[float, float, float, float], float, bool]:
    """Measure the target: box inside the image, visible share, cut by the border."""
    solid = (alpha > 127).astype(np.uint8)
    whole = int(cv2.countNonZero(solid))
    height, width = hidden.shape
    left, top = corner
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = min(left + solid.shape[1], width), min(top + solid.shape[0], height)
    if x1 >= x2 or y1 >= y2 or whole == 0:
        return (0.0, 0.0, 0.0, 0.0), 0.0, True
    inside = solid[y1 - top : y2 - top, x1 - left : x2 - left]
    in_view = int(cv2.countNonZero(inside))
    if in_view == 0:
        return (0.0, 0.0, 0.0, 0.0), 0.0, True
    seen = int(cv2.countNonZero(inside & (hidden[y1:y2, x1:x2] == 0).astype(np.uint8)))
    x, y, w, h = cv2.boundingRect(inside)
    return (float(x + x1), float(y + y1), float(w), float(h)), seen / whole, in_view < whole

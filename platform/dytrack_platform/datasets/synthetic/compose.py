"""Draw the lots of a synthetic sequence: which challenges it has, and how everything moves."""

import cv2
import numpy as np

from dytrack_platform.datasets.sequence import Pixels
from dytrack_platform.datasets.synthetic.config import CHALLENGES, SynthConfig
from dytrack_platform.datasets.synthetic.motion import (
    Curve,
    Poses,
    event,
    rise_and_fall,
    slowed,
    wander,
)
from dytrack_platform.datasets.synthetic.scene import Scene, Thing
from dytrack_platform.datasets.synthetic.supply import Look, Supply, supply_for

_SPRITE = 96
_USUAL_STEP = 0.25
_FAST_STEP = 0.6
"""Largest steps between frames as shares of the target's size, in all but one of 20 frames."""
_FAR_AWAY = -1e5


def compose(config: SynthConfig, rng: np.random.Generator) -> Scene:
    """Make a scene.

    Args:
        config: Shares and strength of the challenges.
        rng: Source of all chance; the same state gives the same scene.

    Raises:
        DataError: The folder of images cannot be used.
    """
    supply = supply_for(config.images, config.cutouts, config.backgrounds)
    frames = int(rng.integers(config.frames[0], config.frames[1] + 1))
    has = {name: bool(rng.random() < getattr(config, name)) for name in CHALLENGES}
    strong = {name: config.strength if has[name] else 0.0 for name in CHALLENGES}
    # The order of these draws is the scene: another order would make other scenes of the same seed.
    camera_x, camera_y, zoom, background = _camera(config, supply, rng, frames, strong["camera"])
    poses = _target_poses(config, rng, frames, strong)
    look = supply.look(rng)
    target = Thing(_sprite(supply, rng, look), poses)
    others = []
    if rng.random() < 0.5:
        others.append(_passer_by(config, supply, rng, frames, poses, supply.look(rng)))
    if has["distractors"]:
        # A distractor that looks otherwise would distract nobody: it shares the target's look.
        near = supply.similar(rng, look)
        others += [
            _passer_by(config, supply, rng, frames, poses, near)
            for _ in range(int(rng.integers(1, 4)))
        ]
    if has["occlusion"]:
        others += [
            _occluder(supply, rng, frames, poses, config.strength)
            for _ in range(int(rng.integers(1, 3)))
        ]
    # A little light changes in every sequence, or a tracker could learn to match by brightness.
    light = 1 + (0.08 + 0.45 * strong["illumination"]) * wander(rng, frames, frames)
    return Scene(
        width=config.width,
        height=config.height,
        background=background,
        camera_x=camera_x,
        camera_y=camera_y,
        camera_zoom=zoom,
        target=target,
        others=tuple(others),
        blur=np.full(frames, 0.9 * strong["motion_blur"]),
        light=np.clip(light, 0.3, 1.7),
        grain=config.grain,
        challenges=tuple(CHALLENGES[name] for name in CHALLENGES if has[name]),
    )


def _sprite(
    supply: Supply,
    rng: np.random.Generator,
    look: Look | None = None,
    *,
    side: int = _SPRITE,
    spread: float = 0.7,
) -> Pixels:
    aspect = float(np.exp(rng.uniform(-spread, spread)))
    return supply.cut_out(rng, side, aspect, supply.look(rng) if look is None else look)


def _camera(
    config: SynthConfig, supply: Supply, rng: np.random.Generator, frames: int, strength: float
) -> tuple[Curve, Curve, Curve, Pixels]:
    # The background is larger than the image, so that the camera can move over it.
    margin = 48
    background = supply.background(rng, config.height + 2 * margin, config.width + 2 * margin)
    for _ in range(int(rng.integers(3, 9))):  # things that stand about
        side = int(rng.integers(config.height // 8, config.height // 2))
        image = _sprite(supply, rng, side=side)
        left = int(rng.integers(0, background.shape[1] - side))
        top = int(rng.integers(0, background.shape[0] - side))
        solid = image[..., 3] > 127
        background[top : top + side, left : left + side][solid] = image[..., :3][solid]
    if rng.random() < 0.5:
        background = cv2.GaussianBlur(background, (0, 0), float(rng.uniform(0.6, 1.6)))  # type: ignore[assignment]
    reach = 6 + 36 * min(strength, 1.3)
    x = margin + slowed(reach * wander(rng, frames, 1.5 * frames), 1 + 4 * strength)
    y = margin + slowed(reach * wander(rng, frames, 1.5 * frames), 1 + 4 * strength)
    x += 1.5 * strength * rng.normal(0, 1, frames)
    y += 1.5 * strength * rng.normal(0, 1, frames)
    zoom = 1 + 0.1 * strength * wander(rng, frames, frames)
    return x, y, zoom, background


def _target_poses(
    config: SynthConfig, rng: np.random.Generator, frames: int, strong: dict[str, float]
) -> Poses:
    small, large = config.target_side
    # Evenly in the logarithm: as many small targets as large ones for each factor of two.
    start = float(np.exp(rng.uniform(np.log(small), np.log(large))))
    growth = (0.1 + 0.6 * strong["scale"]) * wander(rng, frames, 1.3 * frames)
    # Growth is relative to the first frame, whose size was drawn.
    size = start * np.exp(growth - growth[0])
    size = np.clip(size, 0.6 * small, min(1.3 * large, 0.7 * config.height))
    step = (_FAST_STEP if strong["fast_motion"] else _USUAL_STEP) * float(size.mean())
    step *= max(strong["fast_motion"], 1.0) * float(rng.uniform(0.4, 1))
    x = _path(rng, config.width, frames, step)
    y = _path(rng, config.height, frames, step)
    shake = 1.5 * strong["camera"]
    x += shake * rng.normal(0, 1, frames)
    y += shake * rng.normal(0, 1, frames)
    if strong["leaving_view"]:
        away = rise_and_fall(event(rng, frames, (frames // 3, frames // 2)))
        # Out on the side that is nearer, as an object that leaves does.
        to_the_left = x[int(away.argmax())] < 0.5 * config.width
        beside = -0.7 * size if to_the_left else config.width + 0.7 * size
        x = x * (1 - away) + beside * away
    return Poses(
        x=x,
        y=y,
        size=size,
        stretch=np.exp((0.06 + 0.45 * strong["aspect"]) * wander(rng, frames, frames)),
        angle=(0.15 + 1.6 * strong["rotation"]) * wander(rng, frames, 1.5 * frames),
        phase=2 * np.pi * (rng.random() + 1.5 * wander(rng, frames, frames)),
        wave=np.full(frames, min(0.015 + 0.05 * strong["deformation"], 0.15)),
    )


def _path(rng: np.random.Generator, extent: int, frames: int, step: float) -> Curve:
    """Move about inside an image's side, with steps of about ``step`` at most."""
    middle = extent * float(rng.uniform(0.35, 0.65))
    curve = slowed(0.42 * extent * wander(rng, frames, 1.2 * frames, waves=5), step)
    return np.clip(middle + curve, 0.08 * extent, 0.92 * extent)


def _passer_by(
    config: SynthConfig,
    supply: Supply,
    rng: np.random.Generator,
    frames: int,
    target: Poses,
    look: Look,
) -> Thing:
    """An object that moves on its own, about as large as the target."""
    size = target.size * float(rng.uniform(0.7, 1.3))
    step = _USUAL_STEP * float(size.mean())
    poses = Poses(
        x=_path(rng, config.width, frames, step),
        y=_path(rng, config.height, frames, step),
        size=size,
        stretch=np.exp(0.1 * wander(rng, frames, frames)),
        angle=0.3 * wander(rng, frames, frames),
        phase=2 * np.pi * wander(rng, frames, frames),
        wave=np.full(frames, 0.03),
    )
    # In the first frame the target is seen in full, or nobody could say what it is.
    apart = float(np.hypot(poses.x[0] - target.x[0], poses.y[0] - target.y[0]))
    shift = max(0.0, 1.2 * float(size[0]) - apart)
    poses.x[:] += shift if poses.x[0] >= target.x[0] else -shift
    return Thing(_sprite(supply, rng, look), poses)


def _occluder(
    supply: Supply, rng: np.random.Generator, frames: int, target: Poses, strength: float
) -> Thing:
    """Something that crosses in front of the target once."""
    progress = event(rng, frames, (14, 30))
    angle, beside = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(-0.5, 0.5))
    along = (2 * progress - 1) * 2.2
    cos, sin = np.cos(angle), np.sin(angle)
    passing = (progress >= 0) & (progress <= 1)
    size = target.size * float(rng.uniform(0.7, 0.9 + 0.5 * strength))
    still = np.zeros(frames)
    poses = Poses(
        x=np.where(passing, target.x + (along * cos - beside * sin) * target.size, _FAR_AWAY),
        y=np.where(passing, target.y + (along * sin + beside * cos) * target.size, _FAR_AWAY),
        size=size,
        stretch=np.ones(frames),
        angle=still,
        phase=still,
        wave=still,
    )
    return Thing(_sprite(supply, rng, spread=0.5), poses, hides=True)

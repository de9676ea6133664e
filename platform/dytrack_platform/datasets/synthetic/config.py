"""How difficult synthetic sequences are: one knob for each challenge."""

from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any

from dytrack_model.config import Bounds, NotNegative, Share, check_bounds, require

CHALLENGES = {
    "occlusion": "POC",
    "distractors": "BC",
    "fast_motion": "FM",
    "motion_blur": "MB",
    "scale": "SV",
    "deformation": "DEF",
    "rotation": "ROT",
    "aspect": "ARC",
    "illumination": "IV",
    "leaving_view": "OV",
    "camera": "CM",
}
"""Knob of :class:`SynthConfig` to the code that LaSOT gives the challenge."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthConfig:
    """What synthetic sequences look like.

    Each challenge's knob is the share of sequences, in [0, 1], that have it; ``strength`` scales
    how bad the challenges are.
    """

    width: Annotated[int, Bounds(low=32, high=8192)] = 320
    """Width of a frame in pixels."""
    height: Annotated[int, Bounds(low=32, high=8192)] = 240
    """Height of a frame in pixels."""
    frames: tuple[int, int] = (60, 80)
    """Shortest and longest sequence."""
    target_side: tuple[float, float] = (30.0, 90.0)
    """Smallest and largest longer side of a target in pixels, in its first frame."""
    occlusion: Share = 0.35
    """Something passes in front of the target."""
    distractors: Share = 0.4
    """Objects of the target's colours and size move about."""
    fast_motion: Share = 0.25
    """Steps up to about 0.6 of the target's size instead of 0.25."""
    motion_blur: Share = 0.25
    """The target is smeared along its motion."""
    scale: Share = 0.4
    """The target grows and shrinks by up to about a factor of two."""
    deformation: Share = 0.5
    """The target's outline and texture wave."""
    rotation: Share = 0.3
    """The target turns in the image."""
    aspect: Share = 0.3
    """The target gets wider and narrower, as when seen from another side."""
    illumination: Share = 0.3
    """The light changes."""
    leaving_view: Share = 0.15
    """The target leaves the image for some frames and comes back."""
    camera: Share = 0.4
    """The camera moves and shakes."""
    strength: Annotated[float, Bounds(low=0, high=4)] = 1.0
    """Factor on how bad each challenge is."""
    grain: Annotated[float, Bounds(low=0, high=64)] = 3.0
    """Standard deviation of sensor noise in grey levels."""
    quality: Annotated[int, Bounds(low=1, high=100)] = 92
    """JPEG quality of the frames."""
    images: str = ""
    """Folder or URL of real images that backgrounds and objects are taken from, in COCO's
    layout or with images alone; empty: both are drawn."""
    cutouts: str = ""
    """Folder of real things with silhouettes: RGBA images with ``index.json``, or COCO's layout
    with run-length masks. Needs ``backgrounds`` or ``images``."""
    backgrounds: str = ""
    """Folder or URL of real images that only backgrounds are taken from; empty: ``images``."""
    seed: NotNegative = 0
    """Seed of everything."""

    def __post_init__(self) -> None:
        check_bounds(self)
        low, high = self.frames
        require(2 <= low <= high, f"frames: must be a range from 2 up, got {self.frames}")
        small, large = self.target_side
        require(
            8 <= small <= large <= min(self.width, self.height),
            f"target_side: must be a range from 8 up to the image's side, got {self.target_side}",
        )
        require(
            not self.cutouts or bool(self.backgrounds or self.images),
            "cutouts: need images to lie over; name a folder in backgrounds",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; tuples become lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SynthConfig":
        """Build from plain JSON types, all keys optional.

        Raises:
            ConfigurationError: A key is unknown, or a value is of the wrong type or wrong.
        """
        known = {f.name: f for f in fields(cls)}
        checked: dict[str, Any] = {}
        for key, value in values.items():
            require(key in known, f"{key}: no such knob; known: {', '.join(known)}")
            default = known[key].default
            checked[key] = _like(default, key, value)
        return cls(**checked)


def _like(default: Any, key: str, value: Any) -> Any:  # noqa: ANN401  (whatever YAML held)
    """Bring a value to the type of its field's default."""
    if isinstance(default, tuple):
        require(
            isinstance(value, list | tuple) and len(value) == len(default),
            f"{key}: must be a list of {len(default)} numbers, got {value!r}",
        )
        return tuple(_like(d, key, v) for d, v in zip(default, value, strict=True))
    if isinstance(default, float):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        require(is_number, f"{key}: must be a number, got {value!r}")
        return float(value)
    require(
        type(value) is type(default),
        f"{key}: must be of type {type(default).__name__}, got {value!r}",
    )
    return value

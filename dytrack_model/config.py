"""What a tracker is made of: the model's configuration and its named variants.

Every value is checked here, so that a wrong one is refused before any tensor is made. Messages
start with the field's name; the platform puts the dotted path in front of it.

Bounds of numbers are data beside the field that they hold for, so that the check, its message and
the reference page say the same::

    epochs: AtLeastOne = 300
    ema: Annotated[float, Bounds(low=0, below=1)] = 0.0
"""

import itertools
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

from dytrack_model.errors import ConfigurationError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RecyclingSchema = Literal["none", "add", "concat", "cascade"]
Attention = Literal["joint", "template-cached"]
IouToken = Literal["bidirectional", "read_only"]
DecisionerKind = Literal["token", "map", "both"]
TokenType = Literal["template", "target"]
MaskShape = Literal["box", "gaussian"]

RENAMED_IOU_TOKENS = {"mutual": "bidirectional", "reader": "read_only"}
"""Values of ``iou_token`` by their names before; they are refused with the new one named."""


def require(condition: bool, message: str) -> None:
    """Raise :class:`ConfigurationError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise ConfigurationError(message)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """An interval; ``above`` and ``below`` leave their end out, ``low`` and ``high`` hold it.

    With ``multiple`` it holds the positive multiples of a whole number, and has no ends.
    """

    low: float | None = None
    above: float | None = None
    high: float | None = None
    below: float | None = None
    multiple: int | None = None

    def hold(self, value: float) -> bool:
        """Say whether a number lies inside; NaN never does."""
        if self.multiple is not None:
            return value > 0 and value % self.multiple == 0
        return (
            (self.low is None or value >= self.low)
            and (self.above is None or value > self.above)
            and (self.high is None or value <= self.high)
            and (self.below is None or value < self.below)
            and value == value
        )

    def __str__(self) -> str:
        """Finish the sentence "must ..."."""
        if self.multiple is not None:
            return f"be a positive multiple of {self.multiple}"
        end = self.high if self.below is None else self.below
        if end is None:
            if self.above is not None:
                return "be positive" if self.above == 0 else f"be above {self.above:g}"
            return "not be negative" if self.low == 0 else f"be at least {self.low:g}"
        start = self.low if self.above is None else self.above
        first, last = "[" if self.above is None else "(", "]" if self.below is None else ")"
        return f"lie in {first}{start:g}, {end:g}{last}"


AtLeastOne = Annotated[int, Bounds(low=1)]
NotNegative = Annotated[int, Bounds(low=0)]
NotNegativeFloat = Annotated[float, Bounds(low=0)]
Positive = Annotated[float, Bounds(above=0)]
Share = Annotated[float, Bounds(low=0, high=1)]
"""A probability, or a part of something."""


def check_bounds(config: "DataclassInstance") -> None:
    """Check every field of a configuration that has bounds, or a few values to choose from.

    Raises:
        ConfigurationError: A value lies outside, as ``field: must ..., got ...``.
    """
    for name, bounds in bounds_of(type(config)).items():
        value = getattr(config, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        require(number, f"{name}: must be a number, got {value!r}")
        whole = isinstance(value, int) or name not in whole_numbers_of(type(config))
        require(whole, f"{name}: must be a whole number, got {value!r}")
        require(bounds.hold(value), f"{name}: must {bounds}, got {value}")
    for name, choices in choices_of(type(config)).items():
        value = getattr(config, name)
        known = ", ".join(map(str, choices))
        require(value in choices, f"{name}: must be one of {known}, got {value!r}")


@lru_cache
def whole_numbers_of(owner: type) -> frozenset[str]:
    """Return the names of a configuration's fields that hold whole numbers."""
    return frozenset(name for name, hint in get_type_hints(owner).items() if hint is int)


@lru_cache
def choices_of(owner: type) -> dict[str, tuple[Any, ...]]:
    """Return the values of a configuration's fields that take one of a few, by name."""
    hints = get_type_hints(owner)
    return {
        field.name: get_args(hints[field.name])
        for field in fields(owner)
        if get_origin(hints[field.name]) is Literal
    }


@lru_cache
def bounds_of(owner: type) -> dict[str, Bounds]:
    """Return the bounds of a configuration's fields by name."""
    hints = get_type_hints(owner, include_extras=True)
    found = {}
    for field in fields(owner):
        for extra in getattr(hints[field.name], "__metadata__", ()):
            if isinstance(extra, Bounds):
                found[field.name] = extra
    return found


def refuse_renamed(iou_token: object) -> None:
    """Raise :class:`ConfigurationError` for a value of ``iou_token`` that has another name now."""
    for before, now in RENAMED_IOU_TOKENS.items():
        require(iou_token != before, f"iou_token: {before} is now called {now}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The network: a one-stream vision transformer with exits.

    Sizes are pixels of the crops; depths count transformer blocks from 1.
    """

    variant: str = "tiny"
    """Name of the preset this configuration started from: test, tiny, small or base."""
    backbone: str = "vit_tiny_patch16_224"
    """Any plain vision transformer of timm by name (ViT, DeiT, MAE, DINO, DINOv2, CLIP). In a
    recipe the name is enough: what is not set beside it is taken from timm's definition."""
    width: AtLeastOne = 192
    """Channels of a token."""
    depth: AtLeastOne = 12
    """Number of transformer blocks; fewer than the named backbone has cuts it off there."""
    heads: AtLeastOne = 3
    """Attention heads."""
    patch: AtLeastOne = 16
    """Side of a square patch in pixels."""
    template_size: AtLeastOne = 128
    """Side of the template crop in pixels."""
    search_size: AtLeastOne = 256
    """Side of the search crop in pixels."""
    narrow_size: NotNegative = 0
    """Side in pixels of the narrow search crop, the middle of the search crop at the same scale,
    for frames in which the target is certain and slow; 0: there is none. It needs no training."""
    template_factor: Annotated[float, Bounds(low=1, high=64)] = 2.0
    """Side of the template crop over the square root of the target's area."""
    search_factor: Annotated[float, Bounds(low=1, high=64)] = 4.0
    """Side of the search crop over the square root of the target's area."""
    exits: tuple[int, ...] = (2, 6, 12)
    """After which blocks the tracker may stop; the last one must be the depth."""
    recycling: RecyclingSchema = "cascade"
    """How an exit uses again what the exit before it computed."""
    attention: Attention = "joint"
    """joint: all tokens see each other. template-cached: the template sees only itself."""
    iou_token: IouToken = "bidirectional"
    """bidirectional: the IoU token and the others see each other. read_only: it sees them, they do
    not see it."""
    token_type: TokenType = "template"
    """What tells template tokens from search tokens. template: one learned vector. target: a second
    one besides, weighted by the share of each patch that the target's box covers, so that the
    template says what the target is (after SUTrack and LoRAT)."""
    template_matching: bool = False
    """Compare search features with the target's mean template feature at every exit (our choice,
    after the correlation of Siamese trackers)."""
    head_width: Annotated[int, Bounds(multiple=8)] = 64
    """Channels of the first convolution of each box head; halved by each of the next three."""
    decisioner: DecisionerKind = "token"
    """What predicts an exit's IoU. token: the learned IoU token (the paper). map: how clear the
    peak of a coarse score map is (our choice). both: the token and the map."""
    decisioner_width: AtLeastOne = 192
    """Hidden channels of the three-layer perceptron that predicts an exit's IoU."""
    matching_start: NotNegativeFloat = 1.0
    """How strongly untrained attention prefers similar tokens; 0 leaves timm's own start."""

    def __post_init__(self) -> None:
        refuse_renamed(self.iou_token)
        check_bounds(self)
        exits = self.exits
        rising = all(a < b for a, b in itertools.pairwise(exits))
        require(len(exits) > 0, "exits: must name at least one block, got ()")
        require(rising, f"exits: must rise strictly, got {exits}")
        require(exits[0] >= 1, f"exits: must start at block 1 or later, got {exits}")
        require(
            exits[-1] == self.depth,
            f"exits: the last one must be the last block ({self.depth}), got {exits}",
        )
        require(
            self.width % self.heads == 0,
            f"heads: must divide width {self.width}, got {self.heads}",
        )
        for name in ("template_size", "search_size"):
            value = getattr(self, name)
            require(
                value % self.patch == 0,
                f"{name}: must be a positive multiple of patch {self.patch}, got {value}",
            )
        if self.narrow_size:
            self._check_narrow()
        require(
            not (self.template_matching and self.attention == "template-cached"),
            "template_matching: works with attention joint only, where every block carries the "
            "template's tokens; got template-cached",
        )

    def _check_narrow(self) -> None:
        """Refuse a narrow crop whose tokens are not tokens of the search crop's middle."""
        # Positions are shared, so as many rows have to go on one side as on the other.
        fits = self.narrow_size % (2 * self.patch) == self.search_size % (2 * self.patch)
        require(
            fits and self.narrow_size < self.search_size,
            f"narrow_size: must be less than search_size {self.search_size} by a multiple of "
            f"{2 * self.patch}, two patches, got {self.narrow_size}",
        )
        require(
            self.narrow_factor >= 1,
            f"narrow_size: a crop of {self.narrow_size} pixels would be smaller than the target "
            f"with search_factor {self.search_factor:g}; raise it",
        )

    @property
    def narrow_factor(self) -> float:
        """Side of the narrow search crop over the square root of the target's area."""
        return self.search_factor * self.narrow_size / self.search_size

    def narrowed(self) -> "ModelConfig":
        """Return the configuration of the same network over the narrow search crop alone."""
        require(self.narrow_size > 0, "narrow_size: is 0, so there is no narrow search crop")
        return replace(
            self, search_size=self.narrow_size, search_factor=self.narrow_factor, narrow_size=0
        )

    @property
    def reads_target_box(self) -> bool:
        """Whether the network has to be told where in the template crop the target is."""
        return self.token_type == "target" or self.template_matching

    @property
    def map_size(self) -> int:
        """Side of the search region's token grid."""
        return self.search_size // self.patch

    @property
    def template_map_size(self) -> int:
        """Side of the template's token grid."""
        return self.template_size // self.patch

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; tuples become lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """Build from what :meth:`to_dict` gave.

        Raises:
            ConfigurationError: A key is unknown, or a value is wrong.
        """
        known = set(cls.__dataclass_fields__)
        unknown = sorted(set(values) - known)
        require(not unknown, f"{unknown[0] if unknown else ''}: not a key of the model")
        values = {**values, "exits": tuple(values.get("exits", cls().exits))}
        return cls(**values)


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """Weights of the box losses (OSTrack's recipe) and of the decisioner's loss (our choice)."""

    giou: NotNegativeFloat = 2.0
    """Weight of 1 - GIoU."""
    l1: NotNegativeFloat = 5.0
    """Weight of the L1 distance of corners, in [0, 1] of the search crop."""
    focal: NotNegativeFloat = 1.0
    """Weight of the focal loss on the centre map."""
    iou: NotNegativeFloat = 1.0
    """Weight of the squared error of the predicted IoU."""
    absent: Annotated[float, Bounds(low=0, below=1)] = 0.0
    """Share of every batch that shows another pair's template: the target is not there, scores
    and IoU have to be 0 (our choice, after DaSiamRPN's negative pairs)."""

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillationConfig:
    """Target-aware self-distillation: shallow exits learn from the deepest one while training.

    The paper gives no weights; the defaults are our choice, near CompressTracker's.
    """

    feature: NotNegativeFloat = 0.2
    """Weight of the masked feature distance to the deepest exit; 0 switches it off."""
    prediction: NotNegativeFloat = 0.5
    """Weight of the box distance (2 GIoU + 5 L1) to the deepest exit's box; 0 switches it off."""
    teacher: str = ""
    """Folder of a trained tracker that every exit learns from besides; empty: none."""
    teacher_feature: NotNegativeFloat = 0.5
    """Weight of the masked feature distance to the teacher."""
    teacher_prediction: NotNegativeFloat = 0.5
    """Weight of the box distance (2 GIoU + 5 L1) to the teacher's box."""
    mask: MaskShape = "gaussian"
    """Shape of the target mask over the search tokens."""
    outside: Annotated[float, Bounds(above=0, high=1)] = 0.1
    """Weight of tokens outside the target; above 0, so that the background is learnt too."""
    start: Share = 0.1
    """Fraction of training before which distillation is off."""
    ramp: Share = 0.1
    """Fraction of training over which its weight rises from 0 to 1 after ``start``."""

    def __post_init__(self) -> None:
        check_bounds(self)


VARIANTS: dict[str, ModelConfig] = {
    "test": ModelConfig(
        variant="test",
        width=64,
        depth=4,
        heads=2,
        patch=8,
        template_size=64,
        search_size=128,
        exits=(1, 2, 4),
        head_width=32,
        decisioner_width=64,
    ),
    "tiny": ModelConfig(),
    "small": ModelConfig(
        variant="small",
        backbone="vit_small_patch16_224",
        width=384,
        heads=6,
        head_width=128,
        decisioner_width=384,
    ),
    "base": ModelConfig(
        variant="base",
        backbone="vit_base_patch16_224",
        width=768,
        heads=12,
        head_width=256,
        decisioner_width=768,
    ),
}
"""Presets: ``test`` has a few hundred thousand parameters, ``base`` is the paper's size."""


def variant(name: str, **changes: object) -> ModelConfig:
    """Return the named preset with some fields changed.

    Raises:
        ConfigurationError: There is no such preset, or a changed value is wrong.
    """
    require(name in VARIANTS, f"variant: must be one of {', '.join(VARIANTS)}, got {name!r}")
    return replace(VARIANTS[name], **changes)  # type: ignore[arg-type]

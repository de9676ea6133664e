"""When to stop: thresholds on the predicted IoU, named operating points, and baselines.

A policy is asked at every exit but the last one, shallow to deep, and answers whether to leave.
``reads_score`` tells the tracker whether it has to wait for the predicted IoU, ``reads_head``
whether the exit's head has to run before it is asked.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dytrack_model.ambiguity import CLEAR, Ambiguity
from dytrack_model.config import require
from dytrack_model.depth_value import ValueOfDepth, ValueRule
from dytrack_model.errors import ConfigurationError


class Policy(Protocol):
    """Decides at which exit a frame leaves."""

    @property
    def reads_score(self) -> bool:
        """Whether :meth:`leave` looks at the predicted IoU."""
        ...

    @property
    def reads_head(self) -> bool:
        """Whether :meth:`leave` looks at what the exit's head shows, which then runs first."""
        ...

    @property
    def narrow(self) -> bool:
        """Whether frames of a slow target may look at the narrow search region only."""
        ...

    def begin_target(self) -> None:
        """A new target starts: forget the last one's frames."""
        ...

    def begin_frame(self) -> None:
        """A new frame starts."""
        ...

    def leave(self, exit_index: int, predicted_iou: float, ambiguity: Ambiguity = CLEAR) -> bool:
        """Say whether to stop at this exit (counted from 0; never asked at the last one)."""
        ...

    @property
    def varies(self) -> bool:
        """Whether some frames may run to full depth and others not.

        Only then can shallow boxes learn from deep ones.
        """
        ...

    @property
    def learns_from_depth(self) -> bool:
        """Whether :meth:`full_depth` is to be called, for which all heads run in such a frame."""
        ...

    def full_depth(self, predicted_iou: Sequence[float], agreement: Sequence[float]) -> None:
        """Hear of a frame that ran to full depth.

        Args:
            predicted_iou: (E,) of every exit.
            agreement: (E - 1,) IoU of every shallower exit's box with the deepest one's.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatingPoint:
    """A named compromise between accuracy and cost, stored in the checkpoint."""

    name: str
    """Such as fast, balanced or accurate."""
    thresholds: tuple[float, ...] = ()
    """One for each exit but the last: leave where the predicted IoU reaches it. Not read where
    there is a ``value``."""
    hysteresis: float = 0.0
    """How much a threshold moves towards the exit of the frame before; see :class:`Hysteresis`."""

    value: ValueRule | None = None
    """Leave where going on is not worth its price; see :mod:`~dytrack_model.depth_value`."""
    narrow: bool = False
    """Look at the narrow search region only while the target is certain and slow; see
    :mod:`~dytrack_model.narrow`."""

    @property
    def rule(self) -> str:
        """The rule in a few words: a price, or thresholds."""
        if self.value is not None:
            return f"price {self.value.price:.4g}"
        return ", ".join(f"{value:.4g}" for value in self.thresholds)

    @property
    def eagerness(self) -> float:
        """How early it leaves, from 1 (at once) to 0 (never): what sorts a tracker's points.

        A price of depth and thresholds are of different kinds, and only roughly comparable.
        """
        if self.value is not None:
            return 1.0 - 1.0 / (1.0 + max(self.value.price, 0.0))
        limits = [min(max(value, 0.0), 1.0) for value in self.thresholds]
        return 1.0 - sum(limits) / max(len(limits), 1)

    def policy(self) -> Policy:
        """Return a fresh policy that acts on this point."""
        if self.value is not None:
            return ValueOfDepth(self.value, narrow=self.narrow)
        limits = Thresholds(self.thresholds, self.narrow)
        return Hysteresis(limits, self.hysteresis) if self.hysteresis else limits

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; JSON has no infinity, so it becomes the text ``inf``."""
        values = [value if value < float("inf") else "inf" for value in self.thresholds]
        known = {"name": self.name, "thresholds": values, "hysteresis": self.hysteresis}
        known |= {"narrow": True} if self.narrow else {}
        return known if self.value is None else known | {"value": self.value.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "OperatingPoint":
        """Build from what :meth:`to_dict` gave.

        Raises:
            KeyError: A key is missing.
            ValueError: A threshold is no number, the name is no text, or ``narrow`` is not true
                or false.
            ConfigurationError: A rule by value does not fit itself.
        """
        name = values["name"]
        if not isinstance(name, str):
            raise ValueError(f"name: must be a text, got {name!r}")
        thresholds = tuple(float(value) for value in values["thresholds"])
        hysteresis = float(values.get("hysteresis", 0.0))
        value = ValueRule.from_dict(values["value"]) if "value" in values else None
        narrow = values.get("narrow", False)
        if not isinstance(narrow, bool):
            raise ValueError(f"narrow: must be true or false, got {narrow!r}")
        return cls(
            name=name, thresholds=thresholds, hysteresis=hysteresis, value=value, narrow=narrow
        )


FULL = "full"
"""Name of the point that every tracker has: never stop early."""

_NAME = re.compile(r"[^\W\d_]([\w. -]{0,62}\w)?")
_TAKEN = re.compile(
    rf"{FULL}|exit-\d+(-narrow)?|random|cycle|oracle|inf(inity)?|nan", re.IGNORECASE
)


def check_point_name(name: str) -> str:
    """Return a name for an operating point that is to be stored.

    It also names files, and must not mean anything else where a point is asked for.

    Raises:
        ConfigurationError: It is not usable.
    """
    require(
        _NAME.fullmatch(name) is not None,
        "name of an operating point: must be 1 to 64 letters, digits, spaces and _ . - and begin "
        f"with a letter, got {name!r}",
    )
    require(
        _TAKEN.fullmatch(name) is None,
        f"name of an operating point: {name!r} means something else already; choose another",
    )
    return name


def find_point(points: Sequence[OperatingPoint], name: str, exit_count: int) -> OperatingPoint:
    """Return the point of that name.

    Args:
        points: The stored ones.
        name: The name of one of them; ``full``, which every tracker has; or thresholds such as
            ``0.6,0.8``.
        exit_count: Exits of the tracker.

    Raises:
        ConfigurationError: There is none, or there are too few or too many thresholds.
    """
    require(isinstance(name, str), f"operating point: must be a name, got {name!r}")
    if name == FULL:
        return OperatingPoint(name=FULL, thresholds=(float("inf"),) * (exit_count - 1))
    for point in points:
        if point.name == name:
            return point
    try:
        values = tuple(float(part) for part in name.split(","))
    except ValueError:
        known = ", ".join([*(point.name for point in points), FULL])
        raise ConfigurationError(f"operating point {name!r}: this tracker has {known}") from None
    require(
        len(values) == exit_count - 1,
        f"operating point: this tracker takes {exit_count - 1} thresholds, one per exit but the "
        f"last, got {name!r}",
    )
    return OperatingPoint(name=f"at-{name}", thresholds=values)


class _Deaf:
    """A policy that learns nothing from frames at full depth, and looks at no head."""

    __slots__ = ()
    learns_from_depth = False
    reads_head = False

    def full_depth(self, predicted_iou: Sequence[float], agreement: Sequence[float]) -> None:
        """Learn nothing."""


@dataclass(frozen=True, slots=True)
class Thresholds(_Deaf):
    """Leave at the first exit whose predicted IoU reaches its threshold (the paper's rule).

    0 always leaves at the first exit; infinity always goes to the last one.
    """

    values: tuple[float, ...]
    narrow: bool = False

    def __post_init__(self) -> None:
        for value in self.values:
            require(value >= 0, f"thresholds: must not be negative or NaN, got {self.values}")

    def begin_target(self) -> None:
        """Nothing is kept between targets."""

    @property
    def varies(self) -> bool:
        """Full depth can be reached, and not reached."""
        return all(value > 0 for value in self.values) and any(v <= 1 for v in self.values)

    @property
    def reads_score(self) -> bool:
        """The predicted IoU is needed unless every answer is known beforehand."""
        return any(0 < value <= 1 for value in self.values)

    def begin_frame(self) -> None:
        """Nothing is kept between frames."""

    def leave(self, exit_index: int, predicted_iou: float, ambiguity: Ambiguity = CLEAR) -> bool:
        """Compare with this exit's threshold."""
        threshold = self.values[exit_index]
        return threshold == 0 or predicted_iou >= threshold


class Hysteresis(_Deaf):
    """Thresholds that hold on to the last frame's depth, so that it does not flicker.

    A frame after one that left at exit ``j`` meets thresholds lowered by ``margin`` at exit
    ``j`` and deeper, and raised by it at shallower ones: to change depth takes a clear reason.
    Near the ends it moves by less, at most half of the way to 0 or 1, so that some score can
    always change the depth again. Our choice; thresholds of 0, and those above every score, stay
    what they are.
    """

    def __init__(self, limits: Thresholds, margin: float) -> None:
        require(0 < margin < 1, f"hysteresis: must lie between 0 and 1, got {margin}")
        self._limits = limits
        self._margin = margin
        self.begin_target()

    @property
    def narrow(self) -> bool:
        """As the thresholds themselves."""
        return self._limits.narrow

    @property
    def varies(self) -> bool:
        """As the thresholds themselves."""
        return self._limits.varies

    @property
    def reads_score(self) -> bool:
        """As the thresholds themselves."""
        return self._limits.reads_score

    def begin_target(self) -> None:
        """A new target has no last frame."""
        self._last: int | None = None
        self._reached: int | None = None

    def begin_frame(self) -> None:
        """The exit that the last frame reached is where it left."""
        self._last, self._reached = self._reached, 0

    def leave(self, exit_index: int, predicted_iou: float, ambiguity: Ambiguity = CLEAR) -> bool:
        """Compare with this exit's threshold, moved towards the last frame's exit."""
        limit = self._limits.values[exit_index]
        if self._last is not None and 0 < limit <= 1:
            if exit_index < self._last:
                limit += min(self._margin, 0.5 * (1 - limit))
            else:
                limit -= min(self._margin, 0.5 * limit)
        leaving = limit == 0 or predicted_iou >= limit
        self._reached = exit_index if leaving else exit_index + 1
        return leaving


@dataclass(frozen=True, slots=True)
class FixedExit(_Deaf):
    """Baseline: always the same exit, the model of fixed depth that shares these weights."""

    exit_index: int
    narrow: bool = False
    reads_score = False
    varies = False

    def begin_target(self) -> None:
        """Nothing is kept between targets."""

    def begin_frame(self) -> None:
        """Nothing is kept between frames."""

    def leave(self, exit_index: int, predicted_iou: float, ambiguity: Ambiguity = CLEAR) -> bool:
        """Leave at the chosen exit, whatever the score."""
        return exit_index >= self.exit_index


class RandomExit(_Deaf):
    """Baseline: exits drawn at random with given shares, so that the mean cost can be matched."""

    reads_score = False

    def __init__(self, shares: Sequence[float], seed: int = 0, *, narrow: bool = False) -> None:
        total = sum(shares)
        require(total > 0, f"shares: must sum to more than 0, got {tuple(shares)}")
        require(min(shares) >= 0, f"shares: must not be negative, got {tuple(shares)}")
        self._shares = [share / total for share in shares]
        self._seed, self.narrow = seed, narrow
        self.begin_target()

    @property
    def varies(self) -> bool:
        """The deepest exit is drawn now and then."""
        return 0 < self._shares[-1] < 1

    def begin_target(self) -> None:
        """Every target meets the same draws."""
        self._random = random.Random(self._seed)
        self._chosen = 0

    def begin_frame(self) -> None:
        """Draw this frame's exit."""
        self._chosen = self._random.choices(range(len(self._shares)), self._shares)[0]

    def leave(self, exit_index: int, predicted_iou: float, ambiguity: Ambiguity = CLEAR) -> bool:
        """Leave at the exit that was drawn."""
        return exit_index >= self._chosen


class CycleExit(_Deaf):
    """Baseline: the same cycle of exits over and over (ARTrack-AC's fixed cycle)."""

    reads_score = False

    def __init__(self, cycle: Sequence[int], *, narrow: bool = False) -> None:
        require(len(cycle) > 0, "cycle: must name at least one exit, got ()")
        self._cycle, self.narrow = tuple(cycle), narrow
        self.begin_target()

    @property
    def varies(self) -> bool:
        """The cycle has exits that differ."""
        return len(set(self._cycle)) > 1

    def begin_target(self) -> None:
        """Every target starts at the cycle's beginning."""
        self._frame = -1

    def begin_frame(self) -> None:
        """Move on in the cycle."""
        self._frame += 1

    def leave(self, exit_index: int, predicted_iou: float, ambiguity: Ambiguity = CLEAR) -> bool:
        """Leave at the cycle's exit for this frame."""
        return exit_index >= self._cycle[self._frame % len(self._cycle)]


def shares_to_cycle(shares: Sequence[float], length: int = 20) -> tuple[int, ...]:
    """Spread exits over a cycle so that each has about its share of the frames.

    Source: our choice; an error-feedback (Bresenham) walk keeps equal exits apart.
    """
    total = sum(shares)
    owed = [0.0] * len(shares)
    cycle = []
    for _ in range(length):
        owed = [o + share / total for o, share in zip(owed, shares, strict=True)]
        chosen = max(range(len(owed)), key=owed.__getitem__)
        owed[chosen] -= 1.0
        cycle.append(chosen)
    return tuple(cycle)

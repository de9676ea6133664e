"""Bounds of numbers as data: beside the field that they hold for, and checked in one place.

::

    epochs: AtLeastOne = 300
    ema: Annotated[float, Bounds(low=0, below=1)] = 0.0
"""

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, get_type_hints

from dytrack_model.config import require

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """An interval; ``above`` and ``below`` leave their end out, ``low`` and ``high`` hold it."""

    low: float | None = None
    above: float | None = None
    high: float | None = None
    below: float | None = None

    def hold(self, value: float) -> bool:
        """Say whether a number lies inside; NaN never does."""
        return (
            (self.low is None or value >= self.low)
            and (self.above is None or value > self.above)
            and (self.high is None or value <= self.high)
            and (self.below is None or value < self.below)
            and value == value
        )

    def __str__(self) -> str:
        """Finish the sentence "must ..."."""
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
    """Check every field of a configuration that has bounds.

    Raises:
        ConfigurationError: A value lies outside, as ``field: must ..., got ...``.
    """
    for name, bounds in bounds_of(type(config)).items():
        value = getattr(config, name)
        require(bounds.hold(value), f"{name}: must {bounds}, got {value}")


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

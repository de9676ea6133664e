"""What a search may change, what it judges by, and how long it looks."""

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple

from dytrack_model.config import (
    AtLeastOne,
    NotNegative,
    NotNegativeFloat,
    Positive,
    check_bounds,
    require,
)

Sampler = Literal["auto", "tpe", "gp", "nsga2", "random"]
Scheduler = Literal["asha", "none"]
Mode = Literal["post-hoc", "supernet", "full"]
PointRule = Literal["thresholds", "ambiguity"]
SearchRule = Literal["auto", "thresholds", "ambiguity"]

ACCURACY = "iou"
COSTS = ("gmacs", "ms", "params")
GOALS: dict[str, Literal["max", "min"]] = {ACCURACY: "max", **dict.fromkeys(COSTS, "min")}
"""What every operating point reports, and which way is better."""

_CONSTRAINT = re.compile(r"\s*([a-z]+)\s*(<=|>=)\s*([0-9.eE+-]+)\s*")


class Constraint(NamedTuple):
    """A bound that every operating point has to keep, such as ``gmacs <= 2``."""

    name: str
    """iou, gmacs, ms or params."""
    most: bool
    """Whether it is an upper bound."""
    value: float

    def kept(self, value: float) -> bool:
        """Say whether a value keeps it; NaN never does."""
        return value <= self.value if self.most else value >= self.value


def parse_constraint(text: str) -> Constraint:
    """Read ``gmacs <= 2``.

    Raises:
        ConfigurationError: It is none, or of something that is not reported.
    """
    found = _CONSTRAINT.fullmatch(text)
    require(found is not None, f"expected NAME <= NUMBER or NAME >= NUMBER, got {text!r}")
    assert found is not None  # just required
    name, sign, number = found.groups()
    require(name in GOALS, f"{name} is not reported; known: {', '.join(GOALS)}")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    require(math.isfinite(value), f"expected a number after {sign}, got {number!r}")
    return Constraint(name, sign == "<=", value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Placements:
    """Exit placements: rising sets of depths in blocks that end at the last block."""

    count: tuple[int, int] = (1, 3)
    """Fewest and most exits, the last one counted."""
    depths: tuple[int, ...] = ()
    """Where an exit may be; empty: after every block. The last block always is one."""
    distance: AtLeastOne = 1
    """Least number of blocks between two exits."""

    def __post_init__(self) -> None:
        check_bounds(self)
        least, most = self.count
        require(1 <= least <= most, f"count: must be a range from 1 on, got {list(self.count)}")
        rising = all(a < b for a, b in itertools.pairwise(self.depths))
        require(rising, f"depths: must rise strictly, got {list(self.depths)}")
        require(
            not self.depths or self.depths[0] >= 1,
            f"depths: must start at block 1 or later, got {list(self.depths)}",
        )

    def all(self, last: int) -> list[tuple[int, ...]]:
        """List every placement in a network of ``last`` blocks, in lexicographic order.

        Neighbours in that order share their shallow exits and so resemble each other in cost.
        """
        least, most = self.count
        candidates = [depth for depth in self.depths or range(1, last) if depth < last]
        found = [
            (*chosen, last)
            for count in range(least - 1, most)
            for chosen in itertools.combinations(candidates, count)
        ]
        return sorted(
            placement
            for placement in found
            if all(b - a >= self.distance for a, b in itertools.pairwise(placement))
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Dimension:
    """What one key is drawn from: exactly one of the kinds below."""

    choice: tuple[Any, ...] | None = None
    """One of these values."""
    uniform: tuple[float, float] | None = None
    """A number between the two."""
    loguniform: tuple[float, float] | None = None
    """A number between the two, on a logarithmic scale."""
    randint: tuple[int, int] | None = None
    """A whole number between the two, which both belong to it."""
    placements: Placements | None = None
    """An exit placement; for ``model.exits`` only."""

    def __post_init__(self) -> None:
        kinds = [f.name for f in fields(self)]
        given = [name for name in kinds if getattr(self, name) is not None]
        require(
            len(given) == 1,
            f"must be one of {', '.join(kinds)}, got {' and '.join(given) or 'none'}",
        )
        require(self.choice is None or len(self.choice) > 0, "choice: must not be empty, got []")
        for name in ("uniform", "loguniform", "randint"):
            limits = getattr(self, name)
            if limits is None:
                continue
            low, high = limits
            finite = math.isfinite(low) and math.isfinite(high)
            require(finite and low < high, f"{name}: must be a rising range, got {list(limits)}")
            require(
                name != "loguniform" or low > 0, f"{name}: must be positive, got {list(limits)}"
            )

    def corners(self) -> list[Any]:
        """Return values that show whether the dimension fits: all choices, or both ends."""
        if self.choice is not None:
            return list(self.choice)
        limits = self.uniform or self.loguniform or self.randint
        return list(limits or ())


DIMENSION_KINDS = frozenset(f.name for f in fields(Dimension))


def flatten_space(space: object) -> object:
    """Return ``{"model": {"exits": {"placements": …}}}`` as ``{"model.exits": …}``.

    ``--set search.space.model.recycling.choice=[add]`` nests, and recipes may too.
    """
    if not isinstance(space, Mapping):
        return space
    flat: dict[str, Any] = {}
    for key, value in space.items():
        deeper = isinstance(value, Mapping) and any(isinstance(v, Mapping) for v in value.values())
        if isinstance(value, Mapping) and deeper and not DIMENSION_KINDS & set(value):
            inner = flatten_space(value)
            assert isinstance(inner, dict)  # of a mapping
            if not inner:
                flat[str(key)] = value  # no dimension: the schema says what is missing
            flat |= {f"{key}.{rest}": dimension for rest, dimension in inner.items()}
        else:
            flat[str(key)] = value
    return flat


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchConfig:
    """What ``dytrack search`` may change, what it judges by, and how long it looks."""

    space: dict[str, Dimension] = field(default_factory=dict)
    """Dotted keys of the recipe and what their values are drawn from."""
    constraints: tuple[str, ...] = ()
    """Bounds that every operating point keeps: ``gmacs <= 2``, ``ms <= 8``, ``params <= 30e6``."""
    objectives: tuple[str, ...] = (ACCURACY, "gmacs")
    """``iou`` and one or more of gmacs, ms and params."""
    reference: dict[str, float] = field(default_factory=dict)
    """For each objective the value from which on a point is worthless. A trial's score is the
    hypervolume between its points and this one. What is left out is 0 for iou, and for a cost
    1.1 times that of the recipe's own model at full depth."""
    trials: AtLeastOne = 8
    """Trials in all; a search may be continued with more."""
    max_concurrent: AtLeastOne = 2
    """Trials at the same time."""
    epochs: AtLeastOne = 1
    """Epochs of a trial, and with that reports that it can be stopped at."""
    pairs_per_epoch: NotNegative = 0
    """Pairs in an epoch of a trial; 0 takes the recipe's ``data.pairs_per_epoch``."""
    sampler: Sampler = "auto"
    """What chooses configurations. auto: tpe, and nsga2 from 200 trials on."""
    scheduler: Scheduler = "asha"
    """asha: trials whose hypervolume is in the lower half at an epoch of 1, 2, 4, … end there."""
    seed: NotNegative = 0
    """Seed of the sampler."""
    gpu_share: Positive = 1.0
    """Part of a GPU for a trial with one worker, where ``train.gpu`` asks for one."""
    rule: SearchRule = "auto"
    """What points leave by. thresholds: on the predicted IoU, as in the paper. ambiguity: on how
    ambiguous an exit's answer is, which is what pays on videos; it takes sequences that are
    followed (mode post-hoc with ``--dataset``, or ``data.resident_validation``). auto: ambiguity
    wherever sequences are followed."""
    thresholds: AtLeastOne = 50
    """Threshold settings that are tried for every placement."""
    members: AtLeastOne = 8
    """Members of the front that are run again in closed loop."""
    frames: NotNegative = 0
    """Frames of every sequence that ``--dataset`` gives; 0: all."""
    tolerance: NotNegativeFloat = 0.02
    """Difference between promised and measured IoU from which on thresholds are fitted again."""
    finetuned: NotNegative = 3
    """Placements of a supernet that are trained on, the best ones."""
    finetune_epochs: AtLeastOne = 1
    """Epochs of that."""

    def __post_init__(self) -> None:
        check_bounds(self)
        self._check_goals()
        bounds: dict[tuple[str, bool], float] = {}
        for text in self.constraints:
            try:
                one = parse_constraint(text)
            except ValueError as error:
                require(False, f"constraints: {error}")
            bounds[one.name, one.most] = one.value
        for (name, most), value in bounds.items():
            least = bounds.get((name, False), -math.inf)
            require(
                not most or least <= value,
                f"constraints: {name} <= {value:g} and {name} >= {least:g} contradict each other",
            )

    def _check_goals(self) -> None:
        for name in self.objectives:
            require(
                name in GOALS,
                f"objectives: {name} is not reported; known: {', '.join(GOALS)}",
            )
        costs = [name for name in self.objectives if name != ACCURACY]
        require(
            ACCURACY in self.objectives and len(costs) >= 1,
            f"objectives: must be iou and one cost or more, got {list(self.objectives)}",
        )
        require(
            len(set(self.objectives)) == len(self.objectives),
            f"objectives: one stands twice in {list(self.objectives)}",
        )
        for name, value in self.reference.items():
            require(
                name in self.objectives,
                f"reference.{name}: is none of the objectives {list(self.objectives)}",
            )
            require(math.isfinite(value), f"reference.{name}: must be a number, got {value}")
            if name == ACCURACY:
                require(value < 1, f"reference.iou: nothing can beat {value:g}; it must be below 1")
            else:
                require(
                    value > 0, f"reference.{name}: nothing can beat {value:g}; it must be above 0"
                )

    @property
    def bounds(self) -> tuple[Constraint, ...]:
        """The constraints, read."""
        return tuple(parse_constraint(text) for text in self.constraints)

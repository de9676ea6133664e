"""The space of a search: checked as a whole, and its values as plain numbers for a sampler.

A sampler sees numbers: a choice is an index, and so is an exit placement, whose neighbours in
lexicographic order resemble each other in cost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dytrack_model.config import ModelConfig, require
from dytrack_model.cost import planned_gmacs
from dytrack_platform.config import Dimension, ExperimentConfig, resolve, to_dict
from dytrack_platform.config.search import ACCURACY, GOALS, Mode
from dytrack_platform.errors import ConfigurationError

EXITS = "model.exits"

Values = dict[str, Any]
"""Dotted keys of a recipe and their values."""


@dataclass(frozen=True, slots=True)
class Range:
    """What a sampler draws a number from."""

    low: float
    high: float
    whole: bool = False
    log: bool = False
    ordered: bool = True
    """Whether neighbouring numbers mean something alike."""


class Space:
    """The keys that a search changes, and the ways there and back.

    Args:
        config: The recipe.
    """

    def __init__(self, config: ExperimentConfig) -> None:
        self._dimensions: dict[str, Dimension] = dict(config.search.space)
        self._values: dict[str, list[Any]] = {}
        for key, dimension in self._dimensions.items():
            if dimension.placements is not None:
                self._values[key] = list(dimension.placements.all(config.model.depth))
            elif dimension.choice is not None:
                self._values[key] = list(dimension.choice)

    def values_of(self, key: str) -> list[Any]:
        """Return the values that a key of finitely many may take; empty for a range of numbers."""
        return list(self._values.get(key, ()))

    def ranges(self) -> dict[str, Range]:
        """Return what each key's number is drawn from."""
        return {key: self._range(key, one) for key, one in self._dimensions.items()}

    def _range(self, key: str, dimension: Dimension) -> Range:
        if key in self._values:
            ordered = dimension.placements is not None
            return Range(0, len(self._values[key]) - 1, whole=True, ordered=ordered)
        if dimension.randint is not None:
            return Range(*dimension.randint, whole=True)
        if dimension.loguniform is not None:
            return Range(*dimension.loguniform, log=True)
        assert dimension.uniform is not None  # the schema allows no other kind
        return Range(*dimension.uniform)

    def decode(self, numbers: Mapping[str, float]) -> Values:
        """Turn a sampler's numbers into values of the recipe, plain JSON types."""
        changes: Values = {}
        for key, number in numbers.items():
            if key in self._values:
                value = self._values[key][int(number)]
                changes[key] = list(value) if isinstance(value, tuple) else value
            else:
                whole = self._dimensions[key].randint is not None
                changes[key] = int(number) if whole else float(number)
        return changes

    def encode(self, changes: Mapping[str, Any]) -> dict[str, float]:
        """Turn values of the recipe into a sampler's numbers.

        Raises:
            ConfigurationError: A value does not lie in the space.
        """
        numbers: dict[str, float] = {}
        for key in self._dimensions:
            value = changes.get(key)
            if key in self._values:
                known = self._values[key]
                value = tuple(value) if isinstance(value, list) else value
                require(value in known, f"search.space.{key}: {value!r} does not lie in it")
                numbers[key] = known.index(value)
            else:
                limits = self._range(key, self._dimensions[key])
                inside = isinstance(value, int | float) and limits.low <= value <= limits.high
                require(inside, f"search.space.{key}: {value!r} does not lie in it")
                assert value is not None  # it lies inside
                numbers[key] = value
        return numbers


def placements(config: ExperimentConfig, depths: Sequence[int]) -> list[tuple[int, ...]]:
    """List the placements that a search over given exits may choose.

    Args:
        config: The recipe; what it says of ``model.exits`` counts, else all of up to three exits.
        depths: Exits that there are.

    Raises:
        ConfigurationError: There is none.
    """
    from dytrack_platform.config import Placements

    dimension = config.search.space.get(EXITS)
    if dimension is not None and dimension.choice is not None:
        wanted = [tuple(exits) for exits in dimension.choice]
    else:
        chosen = dimension.placements if dimension is not None else None
        wanted = (chosen or Placements()).all(depths[-1])
    found = [exits for exits in wanted if set(exits) <= set(depths)]
    require(
        len(found) > 0,
        f"search.space.{EXITS}: holds no placement among the exits {list(depths)} of this tracker",
    )
    return found


def check(config: ExperimentConfig, mode: Mode) -> None:
    """Refuse what no trial could be made of, before the first one.

    Raises:
        ConfigurationError: A key is unknown, a value does not fit, nothing is to be searched, the
            constraints rule everything out, or the reference point cannot be beaten.
    """
    search = config.search
    require(
        bool(search.space) or mode != "full",
        "search.space: is empty; name a key to change, as "
        "{model.exits: {placements: {count: [1, 3]}}}",
    )
    recipe = to_dict(config)
    for key, dimension in search.space.items():
        _check_dimension(config, recipe, key, dimension)
        if mode != "full":
            require(
                key == EXITS,
                f"search.space.{key}: mode {mode} chooses exits alone; search it in mode full",
            )
    cheapest = _cheapest(config)
    for bound in search.bounds:
        require(
            bound.name != "gmacs" or not bound.most or bound.value >= cheapest,
            f"search.constraints: gmacs <= {bound.value:g} cannot be kept: the cheapest exit of "
            f"the space costs {cheapest:.4g}",
        )
        require(
            bound.name != ACCURACY or bound.most or bound.value < 1,
            f"search.constraints: iou >= {bound.value:g} cannot be kept",
        )
    least = search.reference.get("gmacs")
    require(
        least is None or least > cheapest,
        f"search.reference.gmacs: nothing can beat {least}: the cheapest exit of the space costs "
        f"{cheapest:.4g}",
    )


def _check_dimension(
    config: ExperimentConfig, recipe: Mapping[str, Any], key: str, dimension: Dimension
) -> None:
    where = f"search.space.{key}"
    section = key.partition(".")[0]
    require(section not in ("search", "name"), f"{where}: a search cannot change its own {section}")
    if dimension.placements is not None:
        require(key == EXITS, f"{where}: placements are for {EXITS} only")
        last, depths = config.model.depth, dimension.placements.depths
        require(
            not depths or depths[-1] <= last,
            f"{where}.placements.depths: the network has {last} blocks, got {list(depths)}",
        )
        found = dimension.placements.all(last)
        require(len(found) > 0, f"{where}.placements: no placement in {last} blocks fits them")
        values: list[Any] = [found[0], found[-1]]
    else:
        values = dimension.corners()
    for value in values:
        try:
            resolve(recipe, {key: value})
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}") from None


def _cheapest(config: ExperimentConfig) -> float:
    """Return the GMACs of the cheapest exit that the space's placements hold."""
    return min(planned_gmacs(model)[0] for model in _models(config))


def _models(config: ExperimentConfig) -> list[ModelConfig]:
    """Return the recipe's model with the shallowest placement of each length of first exit."""
    dimension = config.search.space.get(EXITS)
    if dimension is None:
        return [config.model]
    if dimension.choice is not None:
        chosen = [tuple(exits) for exits in dimension.choice]
    else:
        assert dimension.placements is not None  # model.exits takes no other kind
        chosen = dimension.placements.all(config.model.depth)
    first = min(chosen)
    return [resolve(to_dict(config), {EXITS: first}).model]


def goal_directions(objectives: Sequence[str]) -> list[Any]:
    """Return max or min for each objective."""
    return [GOALS[name] for name in objectives]

"""The space of a search: checked as a whole, and its values as plain numbers for a sampler.

A sampler sees numbers: a choice is an index, and so is an exit placement, whose neighbours in
lexicographic order resemble each other in cost.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dytrack_model.config import ModelConfig, require
from dytrack_model.cost import exit_parameters, planned_gmacs
from dytrack_model.network import DyTrackNetwork
from dytrack_platform.config import Dimension, ExperimentConfig, resolve, to_dict
from dytrack_platform.config.search import ACCURACY, Mode, SearchConfig
from dytrack_platform.errors import ConfigurationError

EXITS = "model.exits"
_SIZES = 16
"""Sizes of models of which each one's cost is looked at before the first trial."""
_HELD_OUT = "trials are compared on held-out data, the same for all"
_FIXED = {
    "data.validation": _HELD_OUT,
    "data.validation_share": _HELD_OUT,
    "data.validation_pairs": _HELD_OUT,
    "data.resident_validation": _HELD_OUT,
    "data.root": _HELD_OUT,
    "train.workers": "a search starts its trials' processes",
    "train.gpu": "a search starts its trials' processes",
    "train.cpus_per_worker": "a search starts its trials' processes",
    "train.storage": "a search says where its trials lie",
    "train.checkpoint_steps": "a trial is scored after every epoch",
    "train.sample_images": "a trial draws no pictures",
}
"""Keys that a trial does not take from its changes, and why."""

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
    _check_bounds(config, mode)


def _check_bounds(config: ExperimentConfig, mode: Mode) -> None:
    """Refuse constraints and reference values that nothing in the space can keep or beat."""
    search = config.search
    for bound in search.bounds:
        require(
            bound.name != ACCURACY or bound.most or bound.value < 1,
            f"search.constraints: iou >= {bound.value:g} cannot be kept",
        )
        require(
            bound.name == ACCURACY or not bound.most or bound.value > 0,
            f"search.constraints: {bound.name} <= {bound.value:g} cannot be kept: no frame and no "
            "network is free",
        )
    stated = {name for name in search.reference if name != ACCURACY}
    wanted = {b.name for b in search.bounds if b.most and b.name != ACCURACY} | stated
    least = cheapest(config, mode, wanted & {"gmacs", "params"})
    for name, cost in least.items():
        refuse_unreachable(search, name, cost, f"the cheapest {_WHAT[name]} of the space costs")


_WHAT = {"gmacs": "exit", "params": "tracker"}


def refuse_unreachable(search: SearchConfig, name: str, least: float, why: str) -> None:
    """Refuse an upper bound or a reference value of a cost below the least one there is.

    Args:
        search: Constraints and reference values.
        name: gmacs, ms or params.
        least: The least cost.
        why: Says what that is of; the number is put behind it.

    Raises:
        ConfigurationError: It is below.
    """
    for bound in search.bounds:
        require(
            bound.name != name or not bound.most or bound.value >= least,
            f"search.constraints: {name} <= {bound.value:g} cannot be kept: {why} {least:.4g}",
        )
    stated = search.reference.get(name)
    require(
        stated is None or stated > least,
        f"search.reference.{name}: nothing can beat {stated}: {why} {least:.4g}",
    )


def _check_dimension(
    config: ExperimentConfig, recipe: Mapping[str, Any], key: str, dimension: Dimension
) -> None:
    where = f"search.space.{key}"
    section = key.partition(".")[0]
    require(section not in ("search", "name"), f"{where}: a search cannot change its own {section}")
    require(key not in _FIXED, f"{where}: cannot be searched: {_FIXED.get(key)}")
    require(
        key != "data.pairs_per_epoch" or not config.search.pairs_per_epoch,
        f"{where}: search.pairs_per_epoch says how many pairs an epoch has; leave one out",
    )
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


def cheapest(config: ExperimentConfig, mode: Mode, wanted: Collection[str]) -> dict[str, float]:
    """Return the least ``gmacs`` of a frame and ``params`` of a tracker in the space, as wanted.

    Nothing is returned of a space with too many models to look at each: every trial's own is
    checked before it trains.
    """
    found: dict[str, float] = {}
    models = _models(config, mode) if wanted else []
    if models and "gmacs" in wanted:
        found["gmacs"] = min(planned_gmacs(model)[0] for model in models)
    if models and "params" in wanted:
        found["params"] = float(min(_parameters(model) for model in models))
    return found


def cheapest_model(config: ExperimentConfig, mode: Mode) -> ModelConfig | None:
    """Return the model with the cheapest exit, or None where the space has many sizes of models."""
    models = _models(config, mode)
    sizes = {key for key in config.search.space if key.startswith("model.") and key != EXITS}
    return None if sizes or not models else min(models, key=lambda model: model.exits)


def _parameters(model: ModelConfig) -> int:
    with torch.device("meta"):
        network = DyTrackNetwork(model)
    return exit_parameters(network)[-1]


def _models(config: ExperimentConfig, mode: Mode) -> list[ModelConfig]:
    """Return models of which one has the cheapest exit, and one the fewest parameters.

    They are those with the shallowest first exit and with the fewest exits, in every size that the
    space names; of a range its ends. A post-hoc search has the tracker's own only.
    """
    if mode == "post-hoc":
        return [config.model]
    space = config.search.space
    keys = [key for key in space if key.startswith("model.") and key != EXITS]
    sizes = list(itertools.product(*(space[key].corners() for key in keys)))
    if len(sizes) > _SIZES:
        return []
    found = []
    for values in sizes:
        try:
            sized = resolve(to_dict(config), dict(zip(keys, values, strict=True)))
            for changes in _extremes(sized):
                found.append(resolve(to_dict(sized), changes).model)
        except ConfigurationError:
            continue  # such a pair of values is never tried
    return found


def _extremes(config: ExperimentConfig) -> list[Values]:
    dimension = config.search.space.get(EXITS)
    if dimension is None:
        return [{}]
    if dimension.choice is not None:
        chosen = [tuple(exits) for exits in dimension.choice]
    else:
        assert dimension.placements is not None  # model.exits takes no other kind
        chosen = dimension.placements.all(config.model.depth)
    return [{EXITS: exits} for exits in dict.fromkeys((min(chosen), min(chosen, key=len)))]

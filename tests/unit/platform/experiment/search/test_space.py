"""The space of a search: enumerated, encoded, and refused before the first trial."""

import pytest

from dytrack_model.cost import planned_gmacs
from dytrack_platform.config import Placements, parse_override, resolve
from dytrack_platform.errors import ConfigurationError
from dytrack_platform.experiment.search.space import Space, check, placements


def test_twelve_blocks_hold_67_placements_of_up_to_three_exits():
    found = Placements().all(12)
    assert len(found) == 67
    assert all(exits[-1] == 12 and len(exits) <= 3 for exits in found)
    assert found == sorted(set(found))


def test_candidate_depths_and_the_least_distance_are_kept():
    found = Placements(count=(2, 3), depths=(2, 3, 6), distance=2).all(8)
    assert found == [(2, 6, 8), (2, 8), (3, 6, 8), (3, 8), (6, 8)]


def test_numbers_and_values_lead_to_each_other(recipe):
    space = Space(recipe())
    ranges = space.ranges()
    assert ranges["model.exits"].high == 6
    assert not ranges["model.recycling"].ordered
    for exits in range(7):
        numbers = {"model.exits": exits, "model.recycling": 1, "train.head_lr": 1e-3}
        changes = space.decode(numbers)
        assert changes["model.recycling"] == "add"
        assert space.encode(changes) == numbers
        assert resolve({"name": "x", "model": {"variant": "test"}}, changes)


def test_a_value_outside_of_the_space_is_refused(recipe):
    with pytest.raises(ConfigurationError, match=r"search\.space\.train\.head_lr: 1 does not lie"):
        Space(recipe()).encode({"model.exits": [4], "model.recycling": "none", "train.head_lr": 1})


def test_a_nested_override_means_the_dotted_key():
    key, value = parse_override("search.space.model.recycling.choice=[add, cascade]")
    config = resolve({"name": "x"}, {key: value})
    assert config.search.space["model.recycling"].choice == ("add", "cascade")


def test_placements_of_a_tracker_are_those_among_its_exits(recipe):
    assert placements(recipe(), (1, 2, 4)) == [(1, 2, 4), (1, 4), (2, 4), (4,)]
    with pytest.raises(ConfigurationError, match="holds no placement among the exits"):
        placements(recipe(space={"model.exits": {"choice": [[3, 4]]}}), (1, 4))


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"space": {}}, r"^search\.space: is empty"),
        (
            {"space": {"train.heat_lr": {"uniform": [0, 1]}}},
            r"^search\.space\.train\.heat_lr: train\.heat_lr: no such key; did you mean",
        ),
        (
            {"space": {"train.epochs": {"randint": [0, 3]}}},
            r"^search\.space\.train\.epochs: train\.epochs: must be at least 1",
        ),
        (
            {"space": {"model.exits": {"placements": {"depths": [2, 9]}}}},
            r"^search\.space\.model\.exits\.placements\.depths: the network has 4 blocks",
        ),
        (
            {"space": {"model.exits": {"placements": {"count": [5, 6]}}}},
            r"^search\.space\.model\.exits\.placements: no placement in 4 blocks",
        ),
        (
            {"space": {"model.exits": {"choice": [[2, 9]]}}},
            r"^search\.space\.model\.exits: model\.exits: the last one must be the last block",
        ),
        (
            {"space": {"train.seed": {"placements": {}}}},
            r"^search\.space\.train\.seed: placements are for model\.exits only",
        ),
        (
            {"space": {"search.trials": {"randint": [1, 3]}}},
            r"^search\.space\.search\.trials: a search cannot change its own search",
        ),
        (
            {"constraints": ["gmacs <= 1e-6"]},
            r"^search\.constraints: gmacs <= 1e-06 cannot be kept",
        ),
        ({"constraints": ["iou >= 1.5"]}, r"^search\.constraints: iou >= 1.5 cannot be kept"),
        ({"reference": {"gmacs": 1e-6}}, r"^search\.reference\.gmacs: nothing can beat 1e-06"),
        (
            {"constraints": ["params <= 9"]},
            r"^search\.constraints: params <= 9 cannot be kept: the",
        ),
        ({"constraints": ["ms <= 0"]}, r"^search\.constraints: ms <= 0 cannot be kept: no frame"),
        (
            {"objectives": ["iou", "params"], "reference": {"params": 9}},
            r"^search\.reference\.params: nothing can beat 9\.0: the cheapest tracker of the space",
        ),
        (
            {"space": {"train.workers": {"randint": [1, 2]}}},
            r"^search\.space\.train\.workers: cannot be searched: a search starts",
        ),
        (
            {"space": {"data.validation_share": {"uniform": [0.1, 0.3]}}},
            r"^search\.space\.data\.validation_share: cannot be searched: trials are compared on",
        ),
        (
            {"space": {"data.pairs_per_epoch": {"choice": [256]}}, "pairs_per_epoch": 512},
            r"^search\.space\.data\.pairs_per_epoch: search\.pairs_per_epoch says how many",
        ),
    ],
)
def test_what_no_trial_can_be_made_of_is_refused(recipe, search, message):
    with pytest.raises(ConfigurationError, match=message):
        check(recipe(**search), "full")


def test_a_bound_that_only_the_smaller_models_of_the_space_keep_is_none_too_tight(recipe):
    space = {"model.head_width": {"choice": [8, 32]}, "model.exits": {"placements": {}}}
    own = planned_gmacs(recipe().model)[0]
    check(recipe(space=space, constraints=[f"gmacs <= {0.95 * own}"]), "full")
    with pytest.raises(ConfigurationError, match="cannot be kept"):
        check(recipe(constraints=[f"gmacs <= {0.95 * own}"]), "full")


def test_a_key_that_a_mode_does_not_search_is_refused(recipe):
    with pytest.raises(ConfigurationError, match=r"mode post-hoc chooses exits alone"):
        check(recipe(), "post-hoc")
    check(recipe(space={"model.exits": {"placements": {}}}), "post-hoc")
    check(recipe(), "full")


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"trials": 0}, r"^search\.trials: must be at least 1"),
        ({"objectives": ["iou", "fps"]}, r"^search\.objectives: fps is not reported"),
        ({"objectives": ["iou"]}, r"^search\.objectives: must be iou and one cost or more"),
        ({"objectives": ["iou", "ms", "ms"]}, r"^search\.objectives: one stands twice"),
        ({"constraints": ["gmacs < 2"]}, r"^search\.constraints: expected NAME <= NUMBER"),
        ({"constraints": ["fps >= 30"]}, r"^search\.constraints: fps is not reported"),
        (
            {"constraints": ["ms <= 2", "ms >= 3"]},
            r"^search\.constraints: ms <= 2 and ms >= 3 contradict each other",
        ),
        ({"reference": {"ms": 3}}, r"^search\.reference\.ms: is none of the objectives"),
        ({"reference": {"iou": 1.0}}, r"^search\.reference\.iou: nothing can beat 1"),
        ({"reference": {"gmacs": 0}}, r"^search\.reference\.gmacs: nothing can beat 0"),
        (
            {"space": {"train.ema": {"uniform": [0.9, 0.1]}}},
            r"^search\.space\.train\.ema\.uniform: must be a rising range",
        ),
        (
            {"space": {"train.ema": {"loguniform": [-1, 0.1]}}},
            r"^search\.space\.train\.ema\.loguniform: must be positive",
        ),
        (
            {"space": {"train.ema": {"choice": []}}},
            r"^search\.space\.train\.ema\.choice: must not be empty",
        ),
        (
            {"space": {"train.ema": {"choice": [0], "uniform": [0, 1]}}},
            r"^search\.space\.train\.ema\.must be one of .* got choice and uniform",
        ),
        (
            {"space": {"train.ema": {"normal": [0, 1]}}},
            r"^search\.space\.train\.ema\.normal: no such key",
        ),
    ],
)
def test_a_mistake_of_the_recipe_is_named_by_its_dotted_key(recipe, search, message):
    with pytest.raises(ConfigurationError, match=message):
        recipe(**search)

"""The schema as data: every key with type, default, bounds and meaning; a recipe to begin with."""

import re
from dataclasses import fields

import pytest

from dytrack_platform.config import load, parse_text
from dytrack_platform.config.beginning import write_recipe
from dytrack_platform.config.keys import REQUIRED, keys
from dytrack_platform.config.schema import ExperimentConfig, TrainConfig

KEYS = {key.name: key for key in keys()}


def test_every_field_is_a_key_with_a_meaning():
    assert {field.name for field in fields(ExperimentConfig)} <= set(KEYS)
    assert {f"train.{field.name}" for field in fields(TrainConfig)} <= set(KEYS)
    assert [name for name, key in KEYS.items() if not key.meaning] == []


def test_a_key_says_type_default_and_bounds():
    assert KEYS["name"].default == REQUIRED
    epochs, ema = KEYS["train.epochs"], KEYS["train.ema"]
    assert (epochs.type, epochs.default, epochs.bounds) == ("whole number", 300, "be at least 1")
    assert ema.bounds == "lie in [0, 1)"
    assert KEYS["train.init_from"].type == "text or null"
    assert KEYS["model.recycling"].type == "none or add or concat or cascade"
    assert KEYS["model.exits"].default == [2, 6, 12]
    assert KEYS["data.train[].weight"].bounds == "be positive"
    assert KEYS["search.space.KEY.choice"].type.startswith("list of")


def test_a_first_recipe_loads_and_mentions_every_key():
    text = write_recipe("mine")
    config = parse_text(text, "mine")
    assert config.name == "mine"
    assert config.train == TrainConfig()
    for name in KEYS:
        if "[]" not in name and ".KEY" not in name:
            assert re.search(rf"^ *#?{name.split('.')[-1]}:", text, re.MULTILINE), name


def test_its_comments_are_the_defaults(tmp_path):
    text = write_recipe("mine")
    uncommented = re.sub(r"^( *)#(?=\w)", r"\1", text, flags=re.MULTILINE)
    (tmp_path / "all.yaml").write_text(uncommented)
    assert load(tmp_path / "all.yaml") == parse_text(text, "mine")
    assert "# " not in "".join(line for line in uncommented.splitlines() if line.startswith("#x"))


@pytest.mark.parametrize("name", ["", "a b", ".hidden"])
def test_a_name_that_no_run_can_have_is_refused(name):
    with pytest.raises(ValueError, match="name"):
        parse_text(write_recipe(name), "x")

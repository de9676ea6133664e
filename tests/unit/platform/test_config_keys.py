"""The schema as data: every key with type, default, bounds and meaning; a recipe to begin with."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from dytrack_platform.config import load, parse_text, resolve
from dytrack_platform.config.beginning import write_recipe
from dytrack_platform.config.keys import REQUIRED, keys
from dytrack_platform.config.schema import ExperimentConfig, TrainConfig
from dytrack_platform.errors import ConfigurationError

KEYS = {key.name: key for key in keys()}
PAGE = (Path(__file__).parents[3] / "docs/reference/recipes.md").read_text()


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


def test_every_number_has_bounds():
    single = [key for key in KEYS.values() if key.type in ("whole number", "number")]
    assert len(single) > 60
    assert [key.name for key in single if not key.bounds] == []


def outside(bounds):
    """Return a number that bounds, as the page says them, do not hold."""
    words = {"not be negative": -1, "be positive": 0, "be a positive multiple of 8": 12}
    found = re.fullmatch(r"(?:be at least |lie in [\[(])(\S+?)(?:,.*)?", bounds)
    return words[bounds] if found is None else int(found.group(1)) - 1


PLAIN = [key.name for key in KEYS.values() if key.bounds and not re.search(r"\[]|\.KEY", key.name)]


@pytest.mark.parametrize("name", PLAIN)
def test_a_number_outside_is_refused_in_the_words_of_the_page(name):
    """One place says the bounds: the check, its sentence and the reference page take them there."""
    bounds = KEYS[name].bounds
    sentence = rf"^{re.escape(f'{name}: must {bounds}, got {outside(bounds)}')}(\.0)?$"
    with pytest.raises(ConfigurationError, match=sentence):
        resolve({"name": "x"}, {name: outside(bounds)})


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_the_page_shows_type_default_bounds_and_meaning_of_every_key(key):
    if key.section and "." not in key.name:
        assert f"## {key.name}\n\n{key.meaning.replace('``', '`')}\n" in PAGE
        return
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{key.name}` |"))
    said = row.replace("\\|", "|").split(" | ", 1)[1]
    assert said.startswith(f"*{key.type or 'keys below'}")
    if key.default == REQUIRED:
        assert "**required**" in said
    elif not key.section:
        assert f"default `{json.dumps(key.default)}`" in said
    assert not key.bounds or f"must {key.bounds}.*" in said
    assert key.meaning.replace("``", "`") in said


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

"""Every recipe that comes with the package is valid and says what to expect of it."""

import pytest

from dytrack_pipelines import recipes
from dytrack_platform.config import dump, load


@pytest.mark.parametrize("name", recipes.shipped())
def test_recipe_validates_and_survives_a_dump(name, tmp_path):
    config = load(recipes.find(name))
    assert config.name == name
    (tmp_path / "again.yaml").write_text(dump(config))
    assert load(tmp_path / "again.yaml") == config


@pytest.mark.parametrize("name", recipes.shipped())
def test_recipe_has_a_header(name):
    header = recipes.find(name).read_text().split("name:")[0]
    for word in ("command", "hardware", "time", "expect"):
        assert f"# {word}" in header

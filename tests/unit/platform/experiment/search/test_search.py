"""What is refused of a search before anything begins."""

from dataclasses import replace

import pytest

from dytrack_platform.config.schema import ResidentSource
from dytrack_platform.errors import ConfigurationError
from dytrack_platform.experiment.search.request import Request
from dytrack_platform.experiment.search.search import foretell, rule_of

VIDEOS = ResidentSource(dataset="got10k", root="nowhere", split="val")


@pytest.mark.parametrize("source", [None, VIDEOS])
def test_ambiguity_takes_sequences_that_are_followed(recipe, tmp_path, source):
    """Also with --dataset: a trial is scored on the recipe's own validation data."""
    request = Request(
        config=recipe(rule="ambiguity"), mode="full", source=source, out=str(tmp_path / "out")
    )
    with pytest.raises(ConfigurationError, match=r"^search\.rule: ambiguity is read off sequences"):
        foretell(request, print)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("mode", "source", "resident", "rule"),
    [
        ("full", None, (), "thresholds"),
        ("full", VIDEOS, (), "thresholds"),
        ("post-hoc", None, (), "thresholds"),
        ("post-hoc", VIDEOS, (), "ambiguity"),
        ("full", None, (VIDEOS,), "ambiguity"),
    ],
)
def test_auto_is_ambiguity_where_sequences_are_followed(recipe, mode, source, resident, rule):
    config = recipe()
    config = replace(config, data=replace(config.data, resident_validation=resident))
    assert rule_of(Request(config=config, mode=mode, source=source)) == rule
    chosen = recipe(rule="thresholds")
    assert rule_of(Request(config=chosen, mode=mode, source=source)) == "thresholds"

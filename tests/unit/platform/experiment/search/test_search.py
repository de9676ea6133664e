"""What is refused of a search before anything begins."""

from dataclasses import replace

import pytest

from dytrack_model import checkpoint
from dytrack_model.config import variant
from dytrack_model.cost import planned_gmacs
from dytrack_model.network import DyTrackNetwork
from dytrack_platform.config import resolve
from dytrack_platform.config.schema import ResidentSource
from dytrack_platform.errors import ConfigurationError, StorageError
from dytrack_platform.experiment.runs.store_lock import Pace, store_lock
from dytrack_platform.experiment.search import search as searching
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


def test_post_hoc_is_checked_by_the_tracker_and_not_by_the_recipes_model(tmp_path, monkeypatch):
    """The recipe's own model has 12 blocks here, and the tracker 4."""
    monkeypatch.setattr(searching.fingerprint, "of_sequences", lambda source: "abc")
    model = checkpoint.save(tmp_path / "tracker", DyTrackNetwork(variant("test")))
    least = planned_gmacs(variant("test"))[0]

    def ask(**search):
        space = {"model.exits": {"placements": {"count": [1, 2]}}}
        config = resolve({"name": "x", "search": {"space": space, **search}})
        request = Request(
            config=config, mode="post-hoc", model=str(model), source=VIDEOS, out=str(tmp_path / "o")
        )
        return foretell(request, print)

    assert ask(reference={"gmacs": 2 * least}, constraints=[f"gmacs <= {2 * least}"]).placements
    with pytest.raises(
        ConfigurationError, match=r"^search\.constraints: gmacs <= .* cannot be kept"
    ):
        ask(constraints=[f"gmacs <= {0.9 * least}"])
    with pytest.raises(ConfigurationError, match="the network has 4 blocks"):
        ask(space={"model.exits": {"placements": {"depths": [2, 9]}}})


def test_a_search_on_a_store_is_refused_while_another_machine_is_at_work_there(
    recipe, tmp_path, monkeypatch
):
    monkeypatch.setenv("DYTRACK_JOURNALS", str(tmp_path / "here"))
    monkeypatch.setattr(searching.fingerprint, "of_sequences", lambda source: "abc")
    model = checkpoint.save(tmp_path / "tracker", DyTrackNetwork(variant("test")))
    config = recipe(space={"model.exits": {"placements": {"count": [1, 2]}}})
    location = f"memory://{tmp_path.name}/search"
    request = Request(config=config, mode="post-hoc", model=str(model), source=VIDEOS, out=location)
    there, said = tmp_path / "there", []
    there.mkdir()
    with (
        store_lock(f"{location}/search.lock", there, print, Pace(beat=0.2, settle=0.1)),
        pytest.raises(StorageError, match="is at work there; wait for it"),
    ):
        searching.search(request, print, said.append)
    assert "is still at work there" in said[-1]

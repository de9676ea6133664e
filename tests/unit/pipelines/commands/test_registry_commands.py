"""publish, models, rollback and pareto as commands; the registry itself is tested with MLflow."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dytrack_model import checkpoint
from dytrack_model.config import variant
from dytrack_model.network import DyTrackNetwork
from dytrack_platform.experiment.registry import promote, promotion, publishing
from dytrack_platform.experiment.registry.gate import Verdict
from dytrack_platform.experiment.runs import pareto
from dytrack_platform.experiment.runs.pareto import RunPoint, RunPoints

MOVE = promotion.Entry(
    at="2026-01-02T03:04:05.6+00:00",
    by="ada",
    kind="promotion",
    alias="champion",
    before=1,
    after=2,
    why="better",
)


@pytest.fixture
def tracker(tmp_path):
    torch.manual_seed(0)
    run = tmp_path / "run"
    checkpoint.save(run / "tracker", DyTrackNetwork(variant("test")))
    (run / "experiment.json").write_text(json.dumps({"run_id": "abc", "fingerprint": "f1"}))
    return run / "tracker"


@pytest.fixture
def published(monkeypatch):
    """Stand for MLflow: keep what would be published."""
    seen = SimpleNamespace()

    def publish(folder, name, **more):
        seen.folder, seen.more = Path(folder), more
        return publishing.Version(name=name, version=7, aliases=("balanced",), run_id="r")

    monkeypatch.setattr(publishing, "publish", publish)
    return seen


def test_a_published_tracker_is_named_with_where_it_came_from(dytrack, tracker, published):
    done = dytrack("publish", str(tracker), "--alias", "fast", "--name", "mine")
    assert done.returncode == 0, done.stderr
    assert "published mine version 7: models:/mine/7 (balanced)" in done.stdout
    assert published.folder.resolve() == tracker.resolve()
    assert published.more["aliases"] == ["fast"]
    assert published.more["lineage"] == {"training_run": "abc", "training_data": "f1"}
    told = json.loads(dytrack("publish", str(tracker), "--json").stdout)
    assert (told["version"], told["promotion"]) == (7, None)


@pytest.mark.parametrize(
    ("refusals", "words", "code", "said"),
    [
        ((), ["--promote"], 0, "champion moved from version 3 to version 7; aliases moved: fast"),
        (("slower by half",), ["--promote"], 3, "the gate refuses version 7: slower by half"),
        (("slower by half",), ["--force", "needed"], 0, "champion moved from version 3"),
    ],
)
def test_a_promotion_says_what_came_of_it(
    dytrack, tracker, published, monkeypatch, refusals, words, code, said
):
    asked = []

    def decide(name, version, gate, *, force=""):
        asked.append((name, version, gate.point, force))
        verdict = Verdict(refusals=refusals, report={"ms": 2.0})
        return promote.Outcome(verdict=verdict, moved=("fast",), before=3)

    monkeypatch.setattr(promote, "promote", decide)
    done = dytrack("publish", str(tracker), *words, "--point", "fast", "--json")
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    promotion_told = json.loads(done.stdout)["promotion"]
    assert promotion_told["before"] == 3
    assert promotion_told["verdict"]["refusals"] == list(refusals)
    assert asked == [("dytrack", 7, "fast", "needed" if "--force" in words else "")]
    if code:
        assert "champion stays with version 3" in done.stderr


def test_without_a_tracker_nothing_is_published(dytrack, published):
    assert dytrack("publish").returncode == 2
    assert not vars(published)


def test_versions_are_listed_with_aliases_and_scores(dytrack, monkeypatch):
    tags = {"exits": "1 2 4", "ms": "1 2 3", "success_auc.fast": "0.5", "success_auc.full": "0.6"}
    one = SimpleNamespace(version="2", creation_timestamp=1_767_323_045_000, tags=tags)
    monkeypatch.setattr(promotion, "versions", lambda name: [one])
    monkeypatch.setattr(promotion, "aliases", lambda name: {2: ("champion", "fast")})
    done = dytrack("models", "mine")
    assert done.returncode == 0, done.stderr
    for word in ("versions of mine", "champion, fast", "2026-01-02 03:04", "fast 0.5, full 0.6"):
        assert word in done.stdout
    (told,) = json.loads(dytrack("models", "--json").stdout)
    assert told == {
        "version": 2,
        "aliases": ["champion", "fast"],
        "published": 1_767_323_045.0,
        "tags": tags,
    }


def test_moves_are_listed_and_undone(dytrack, monkeypatch):
    monkeypatch.setattr(promotion, "history", lambda name: [MOVE])
    done = dytrack("models", "--history")
    for word in ("2026-01-02 03:04:05", "promotion", "champion", "1 to 2", "ada", "better"):
        assert word in done.stdout
    (told,) = json.loads(dytrack("models", "--history", "--json").stdout)
    assert (told["before"], told["after"]) == (1, 2)
    asked = []
    monkeypatch.setattr(promotion, "rollback", lambda *words: asked.append(words) or MOVE)
    done = dytrack("rollback", "--why", "it drifts", "--json")
    assert asked == [("dytrack", "champion", "it drifts")]
    assert "champion of dytrack moved back from version 1 to version 2" in done.stderr
    assert json.loads(done.stdout)["kind"] == "promotion"


def test_fronts_of_runs_come_on_one_page(dytrack, monkeypatch, tmp_path):
    points = tuple(
        RunPoint(name=name, accuracy=value, gmacs=cost, ms=None, baseline=False)
        for name, value, cost in (("fast", 0.5, 0.1), ("full", 0.6, 0.4))
    )

    def found(run):
        return RunPoints(
            name=run,
            kind="evaluate",
            measure="success_auc",
            data="made test",
            protocol="got10k",
            machine="",
            points=points,
        )

    monkeypatch.setattr(pareto, "find", found)
    done = dytrack("pareto", "one", "two", "--out", str(tmp_path / "page"), "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [front["name"] for front in told["fronts"]] == ["one", "two"]
    assert told["fronts"][0]["hypervolume"] > 0
    assert all(Path(file).is_file() for file in told["files"])
    assert "success_auc on made test" in done.stderr

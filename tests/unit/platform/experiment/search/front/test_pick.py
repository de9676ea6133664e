"""A picked member becomes a tracker that starts at the member's policy."""

import shutil
from dataclasses import replace

import pytest
import torch

from dytrack_model import checkpoint
from dytrack_model.config import variant
from dytrack_model.network import DyTrackNetwork
from dytrack_platform.errors import ModelLookupError
from dytrack_platform.experiment.runs import tracking
from dytrack_platform.experiment.search.front import members
from dytrack_platform.experiment.search.front.members import Candidate, Front
from dytrack_platform.experiment.search.front.pick import POINT, picked
from dytrack_platform.experiment.search.points.threshold_front import Point


def test_a_picked_member_is_the_balanced_point_of_its_tracker(tmp_path, recipe, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    weights = checkpoint.save(tmp_path / "weights", DyTrackNetwork(variant("test")))
    write_front(tmp_path / "search", recipe(), weights)
    there = set(tmp_path.iterdir())
    with picked(str(tmp_path / "search"), "gmacs<=2.5, max iou") as folder:
        saved = checkpoint.load(folder)
        assert set(tmp_path.iterdir()) == there  # nothing is left where the command was called
    assert not folder.exists()
    point = next(p for p in saved.points if p.name == POINT)
    assert point.thresholds[0] == 0.6
    assert {p.name for p in saved.points} == {POINT, "01", "03", "accurate"}
    assert saved.notes["member"]["name"] == "02"


@pytest.mark.slow
@pytest.mark.parametrize("trial", [1, None])
def test_weights_from_mlflow_are_those_of_the_members_own_trial(
    tmp_path, recipe, monkeypatch, trial
):
    """Trial 0 was member 02 of an earlier front, and its run still has what it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    search = tmp_path / "search"
    run_id = tracking.begin("x", None, "search")
    weights = checkpoint.save(tmp_path / "weights", DyTrackNetwork(variant("test")))
    entries = []
    for place in ("trial-000", "trial-001", "members"):
        folder = checkpoint.save(
            search / place / "02", DyTrackNetwork(variant("test")), notes={"of": place}
        )
        for path in sorted(folder.iterdir()):
            entry = {"file": str(path.relative_to(search))}
            entries.append(entry if place == "members" else {**entry, "child": place, "as": "02"})
    write_front(search, recipe(), weights, trial)
    entries += [{"file": "front.json"}, {"file": "details.json"}]
    tracking.deliver(run_id, search, entries)
    shutil.rmtree(weights)
    with picked(run_id, "gmacs<=2.5, max iou") as folder:
        saved = checkpoint.load(folder)
    assert saved.notes["of"] == ("members" if trial is None else "trial-001")
    with (
        pytest.raises(ModelLookupError, match="the weights of member 01 are neither at"),
        picked(run_id, "min gmacs"),
    ):
        pass


def write_front(folder, config, weights, trial=None):
    """Write a front of three members with the same weights."""
    candidates = [
        Candidate(
            point=Point(
                exits=(1, 4),
                thresholds=(limit,),
                shares=(0.5, 0.5),
                values={"iou": iou, "gmacs": gmacs},
            ),
            depths=(1, 2, 4),
            changes={},
            weights=str(weights),
            trial=trial,
        )
        for limit, iou, gmacs in ((0.2, 0.5, 1.0), (0.6, 0.7, 2.0), (0.9, 0.8, 4.0))
    ]
    depths = checkpoint.read_config(weights).exits
    candidates = [replace(c, depths=depths) for c in candidates]
    front = Front(
        mode="post-hoc",
        name="x",
        members=tuple(members.named(candidates, config.search)),
        candidates=tuple(candidates),
        objectives=("iou", "gmacs"),
        reference=(0.0, 5.0),
        hypervolume=1.0,
        latency=(),
        notes={"knee": "02", "tried": 3, "sequences": 2, "undecided": {}},
    )
    members.write(front, config, folder)

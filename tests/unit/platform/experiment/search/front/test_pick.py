"""A picked member becomes a tracker that starts at the member's policy."""

import torch

from dytrack_model import checkpoint
from dytrack_model.config import variant
from dytrack_model.network import DyTrackNetwork
from dytrack_platform.experiment.search.front import members
from dytrack_platform.experiment.search.front.members import Candidate, Front
from dytrack_platform.experiment.search.front.pick import POINT, tracker_of
from dytrack_platform.experiment.search.points.threshold_front import Point


def test_a_picked_member_is_the_balanced_point_of_its_tracker(tmp_path, recipe, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    weights = checkpoint.save(tmp_path / "weights", DyTrackNetwork(variant("test")))
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
        )
        for limit, iou, gmacs in ((0.2, 0.5, 1.0), (0.6, 0.7, 2.0), (0.9, 0.8, 4.0))
    ]
    depths = checkpoint.read_config(weights).exits
    candidates = [
        Candidate(point=c.point, depths=depths, changes={}, weights=c.weights) for c in candidates
    ]
    front = Front(
        mode="post-hoc",
        name="x",
        members=tuple(members.named(candidates, recipe().search)),
        candidates=tuple(candidates),
        objectives=("iou", "gmacs"),
        reference=(0.0, 5.0),
        hypervolume=1.0,
        latency=(),
        notes={"knee": "02", "tried": 3, "sequences": 2, "undecided": {}},
    )
    members.write(front, recipe(), tmp_path / "search")
    folder = tracker_of(str(tmp_path / "search"), "gmacs<=2.5, max iou")
    saved = checkpoint.load(folder)
    point = next(p for p in saved.points if p.name == POINT)
    assert point.thresholds[0] == 0.6
    assert {p.name for p in saved.points} == {POINT, "01", "03", "accurate"}
    assert saved.notes["member"]["name"] == "02"

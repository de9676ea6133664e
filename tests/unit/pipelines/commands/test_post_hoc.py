"""A search in mode post-hoc over sequences that are followed, and the same command once more."""

import json
import shutil

import mlflow
import pytest
import torch
import yaml

from dytrack_model import checkpoint
from dytrack_model.config import variant
from dytrack_model.network import DyTrackNetwork
from dytrack_platform.config import load
from dytrack_platform.datasets.synthetic import SynthConfig, make
from dytrack_platform.experiment.search import judging

pytestmark = pytest.mark.slow

RECIPE = {
    "name": "x",  # no word of a model: the tracker has its own
    "search": {
        "space": {"model.exits": {"placements": {"count": [1, 3]}}},
        "reference": {"iou": -0.1},  # an untrained tracker finds nothing
        "members": 3,
    },
}


def test_videos_are_followed_once_for_each_tracker(dytrack, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "tracker", DyTrackNetwork(variant("test")))
    looks = SynthConfig(frames=(5, 6), width=160, height=120, target_side=(20.0, 40.0))
    make(tmp_path / "made", looks, "test", 4, workers=1)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    recorded = []
    record = judging.record
    monkeypatch.setattr(judging, "record", lambda *about: recorded.append(1) or record(*about))
    words = ["search", str(tmp_path / "recipe.yaml"), "--mode", "post-hoc", "--json"]
    words += ["--model", str(tmp_path / "tracker"), "--out", str(tmp_path / "out")]
    words += ["--dataset", "got10k", "--root", str(tmp_path / "made"), "--split", "test"]

    first = dytrack(*words)
    assert first.returncode == 0, first.stderr
    (kept,) = (tmp_path / "out/exits").iterdir()
    rows = json.loads((tmp_path / "out/front.json").read_text())
    assert rows
    assert recorded == [1]
    for row in rows:
        if row["on_front"]:
            own = load(tmp_path / f"out/front/{row['name']}.yaml").model
            assert (own.depth, list(own.exits)) == (4, row["exits"])
    for row in rows:
        assert row["exits"][-1] == 4
        assert set(row["closed_loop"]) == {"success_auc", "iou", "ms", "gmacs"}
        assert row["weights"] == str(tmp_path / "tracker")
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    for row in rows:
        assert run.data.metrics[f"{row['name']}/iou"] == pytest.approx(row["iou"])

    again = dytrack(*words)
    assert again.returncode == 0, again.stderr
    assert "is there already" in again.stderr
    assert recorded == [1]
    assert json.loads((tmp_path / "out/front.json").read_text()) == rows

    # A damaged file is no reason to stop, and other weights are another tracker.
    kept.write_bytes(kept.read_bytes()[:200])
    mended = dytrack(*words)
    assert mended.returncode == 0, mended.stderr
    assert "it is recorded anew" in mended.stderr
    assert recorded == [1, 1]
    assert json.loads((tmp_path / "out/front.json").read_text()) == rows
    shutil.rmtree(tmp_path / "tracker")
    checkpoint.save(tmp_path / "tracker", DyTrackNetwork(variant("test")))
    other = dytrack(*words)
    assert other.returncode == 2
    assert recorded == [1, 1]

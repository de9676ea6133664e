import json
import os
import subprocess
import sys
import threading
from dataclasses import replace

import mlflow
import numpy as np
import pytest
import torch

from dytrack_model import Tracker, checkpoint
from dytrack_model.config import variant
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import OperatingPoint
from dytrack_model.runtime import export
from dytrack_platform.errors import (
    CheckpointError,
    ConfigurationError,
    DataError,
    ModelLookupError,
    StorageError,
)
from dytrack_platform.experiment.registry import promote, promotion, publishing, registry
from dytrack_platform.experiment.registry.gate import Gate
from dytrack_platform.experiment.runs import tracking

pytestmark = pytest.mark.ray  # no Ray, but MLflow's store takes seconds to make

POINTS = (OperatingPoint(name="balanced", thresholds=(0.5, 0.5)),)
ANY_SPEED = Gate(slower=None)

# Small tensors gain nothing from threads, and lose much where other work shares the cores.
torch.set_num_threads(1)


@pytest.fixture
def tracker(tmp_path):
    torch.manual_seed(0)
    return checkpoint.save(tmp_path / "tracker", DyTrackNetwork(variant("test")), POINTS)


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (3, 120, 160, 3), dtype=np.uint8)


def evaluation(folder, shift=0.0, data="d1"):
    """What dytrack evaluate would have written, in so far as it is read."""
    rng = np.random.default_rng(1)
    scores = {f"s{k}": {"success_auc": v + shift} for k, v in enumerate(rng.random(8) * 0.5)}
    point = {
        "name": "balanced",
        "exit_share": [0.5, 0.25, 0.25],
        "success_auc": float(np.mean([row["success_auc"] for row in scores.values()])),
        "gmacs": 0.01,
        "per_sequence": scores,
    }
    summary = {"dataset": "made", "protocol": "lasot", "data": data}
    summary |= {"points": [point], "exit_blocks": [1, 2, 4]}
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_a_published_tracker_is_found_by_alias_and_by_version(store, tracker, tmp_path):
    version = publishing.publish(
        tracker, "dytrack", aliases=["nightly"], evaluation=evaluation(tmp_path / "e")
    )
    expected = checkpoint.load(tracker).network.state_dict()
    names = ("models:/dytrack@nightly", "models:/dytrack@candidate", version.uri, str(tracker))
    for reference in names:
        saved = registry.load(reference)
        assert saved.points == POINTS
        for name, value in saved.network.state_dict().items():
            torch.testing.assert_close(value, expected[name])
    tags = mlflow.MlflowClient().get_model_version("dytrack", "1").tags
    assert tags["exits"] == "1, 2, 4"
    assert float(tags["success_auc.balanced"]) == pytest.approx(0.2, abs=0.1)
    assert promotion.holder("dytrack", "champion") is None, "nobody asked for a promotion"


def test_mlflow_itself_loads_and_runs_a_published_tracker(store, tracker, frames):
    publishing.publish(tracker, "dytrack")
    model = mlflow.pyfunc.load_model("models:/dytrack@candidate")
    box = np.array([[40.0, 30.0, 30.0, 30.0]])
    for params, point in (({}, "balanced"), ({"point": "full"}, "full"), (None, "balanced")):
        found = model.predict({"frames": frames, "box": box}, params=params)
        ours = list(Tracker.load(tracker, point).track(frames, box[0]))
        expected = np.stack([box[0], *(one.box_xywh for one in ours)])
        np.testing.assert_allclose(found["boxes"], expected, atol=1e-4)
        assert found["exits"].tolist() == [0, *(one.exit for one in ours)]


def test_a_tracker_without_operating_points_runs_to_full_depth(store, tmp_path, frames):
    bare = checkpoint.save(tmp_path / "bare", DyTrackNetwork(variant("test")))
    publishing.publish(bare, "bare")
    model = mlflow.pyfunc.load_model("models:/bare/1")
    found = model.predict({"frames": frames, "box": np.array([[40.0, 30.0, 30.0, 30.0]])})
    assert found["exits"].tolist() == [0, 4, 4]


def test_a_version_runs_where_dytrack_is_not_installed(store, tracker, tmp_path):
    publishing.publish(tracker, "dytrack")
    # Packages of the environment, but neither this checkout nor its editable install.
    code = (
        "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' in p or 'lib' in p];\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f)]\n"
        "import importlib.util, mlflow, numpy as np\n"
        "assert importlib.util.find_spec('dytrack_platform') is None\n"
        "model = mlflow.pyfunc.load_model('models:/dytrack/1')\n"
        "frames = np.zeros((2, 64, 64, 3), dtype=np.uint8)\n"
        "print(model.predict({'frames': frames, 'box': np.array([[8., 8., 16., 16.]])}))\n"
        "import dytrack_model; print(dytrack_model.__file__)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    script = tmp_path / "elsewhere.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, "-P", str(script)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    # The store's path is relative to no folder, so the other process finds it.
    assert done.returncode == 0, done.stderr[-2000:]
    assert "/code/dytrack_model/" in done.stdout


def test_publishing_has_a_run_of_its_own_and_leaves_the_trainings_alone(store, tracker):
    with pytest.raises(RuntimeError), tracking.run("trained", kind="train") as run:
        raise RuntimeError("out of luck")
    version = publishing.publish(tracker, "dytrack", lineage={"training_run": run.run_id})
    client = mlflow.MlflowClient()
    trained = client.get_run(run.run_id)
    assert (trained.info.status, trained.data.tags["kind"]) == ("FAILED", "train")
    own = client.get_run(version.run_id)
    assert version.run_id != run.run_id
    assert own.data.tags["lineage.training_run"] == run.run_id
    assert own.info.status == "FINISHED"
    assert "ms.exit1" in own.data.metrics


def test_a_run_of_another_store_can_be_published(store, tracker, dytrack):
    record = {"run_id": "0" * 32}
    (tracker.parent / "experiment.json").write_text(json.dumps(record))
    ended = dytrack("publish", str(tracker))
    assert ended.returncode == 0, ended.stderr
    tags = mlflow.MlflowClient().get_model_version("dytrack", "1").tags
    assert tags["lineage.training_run"] == "0" * 32


@pytest.mark.parametrize("alias", ["v3", "latest", "champion", "a b", "x/y"])
def test_an_alias_that_cannot_be_is_refused_before_anything_is_made(store, tracker, alias, dytrack):
    ended = dytrack("publish", str(tracker), "--alias", alias)
    assert ended.returncode == 2
    assert alias in ended.stderr
    tracking.connect()
    assert mlflow.search_registered_models() == []
    assert len(mlflow.search_runs(search_all_experiments=True)) == 0


def test_whatever_is_wrong_is_found_before_anything_is_made(store, tracker, tmp_path):
    for wrong in ("a/b", "", "x:y"):
        with pytest.raises(ConfigurationError, match="a model's name is one word"):
            publishing.publish(tracker, wrong)
    with pytest.raises(DataError, match="give the folder that dytrack evaluate wrote"):
        publishing.publish(tracker, "dytrack", evaluation=tmp_path / "nothing")
    other = evaluation(tmp_path / "other")
    summary = json.loads((other / "summary.json").read_text())
    (other / "summary.json").write_text(json.dumps(summary | {"exit_blocks": [2, 6]}))
    with pytest.raises(DataError, match="give its own evaluation"):
        publishing.publish(tracker, "dytrack", evaluation=other)
    weights = evaluation(tmp_path / "weights")
    torch.manual_seed(1)
    twin = checkpoint.save(tmp_path / "twin", DyTrackNetwork(variant("test")), POINTS)
    summary = json.loads((weights / "summary.json").read_text())
    (weights / "summary.json").write_text(
        json.dumps(summary | {"model": checkpoint.fingerprint(twin)})
    )
    with pytest.raises(DataError, match=r"other weights than .*; give its own evaluation"):
        publishing.publish(tracker, "dytrack", evaluation=weights)
    tracking.connect()
    assert len(mlflow.search_runs(search_all_experiments=True)) == 0
    publishing.publish(twin, "dytrack", evaluation=weights)


def test_the_gate_refuses_a_worse_version_and_lets_a_better_one_pass(store, tracker, tmp_path):
    for name, shift in (("first", 0.0), ("worse", -0.1), ("better", 0.1)):
        publishing.publish(tracker, "dytrack", evaluation=evaluation(tmp_path / name, shift))
    assert promote.promote("dytrack", 1, ANY_SPEED).moved == ("champion", "balanced")
    refused = promote.promote("dytrack", 2, ANY_SPEED)
    assert refused.moved == ()
    assert "success AUC differs by -0.1000" in refused.verdict.refusals[0]
    tags = mlflow.MlflowClient().get_model_version("dytrack", "2").tags
    assert "its low end must be at least" in tags["refused_why"]
    assert promotion.holder("dytrack", "champion") == 1
    assert "champion" in promote.promote("dytrack", 3, ANY_SPEED).moved
    tags = mlflow.MlflowClient().get_model_version("dytrack", "3").tags
    assert tags["promoted_from"] == "1"
    assert "+0.1000" in tags["promoted_why"]
    # And back, once: before the first version there was nobody.
    assert promotion.rollback("dytrack", "champion", "test").after == 1
    with pytest.raises(ModelLookupError, match="no earlier version to go back to"):
        promotion.rollback("dytrack", "champion", "test")
    kinds = [one.kind for one in promotion.history("dytrack") if one.alias == "champion"]
    assert kinds == ["promoted", "refused", "promoted", "rolled back"]


def test_points_whose_names_are_no_aliases_are_published_and_move_none(store, tmp_path):
    names = ("balanced", "my point", "v2")
    points = [replace(POINTS[0], name=name) for name in names]
    folder = checkpoint.save(tmp_path / "tracker", DyTrackNetwork(variant("test")), points)
    results = evaluation(tmp_path / "e")
    summary = json.loads((results / "summary.json").read_text())
    (point,) = summary["points"]
    summary["points"] = [point | {"name": name} for name in (*names, "at-0.6,0.8")]
    (results / "summary.json").write_text(json.dumps(summary))
    publishing.publish(folder, "dytrack", evaluation=results)
    tags = mlflow.MlflowClient().get_model_version("dytrack", "1").tags
    assert {"success_auc.balanced", "success_auc.my point"} <= set(tags)
    assert promote.promote("dytrack", 1, ANY_SPEED).moved == ("champion", "balanced")


def test_a_forced_promotion_is_written_down_with_its_reason(store, tracker, tmp_path):
    publishing.publish(tracker, "dytrack", evaluation=evaluation(tmp_path / "one"))
    publishing.publish(tracker, "dytrack", evaluation=evaluation(tmp_path / "two", data="d2"))
    promote.promote("dytrack", 1, ANY_SPEED)
    outcome = promote.promote("dytrack", 2, ANY_SPEED, force="the data grew")
    assert "differ in data" in outcome.verdict.refusals[0]
    assert "champion" in outcome.moved
    last = [one for one in promotion.history("dytrack") if one.alias == "champion"][-1]
    assert last.kind == "forced"
    assert last.why.startswith("the data grew (the gate refused:")


def test_of_two_who_promote_at_once_one_is_told_that_he_lost(store, tracker, monkeypatch):
    for _ in range(3):
        publishing.publish(tracker, "dytrack")
    promotion.move("dytrack", promotion.entry("promoted", "champion", None, 1, "first"))
    # Both have read version 1 before either writes.
    both = threading.Barrier(2)
    real = mlflow.MlflowClient.set_registered_model_alias

    def together(self, *words):
        both.wait(timeout=20)
        return real(self, *words)

    monkeypatch.setattr(mlflow.MlflowClient, "set_registered_model_alias", together)
    lost = []

    def promoter(version):
        try:
            promotion.move(
                "dytrack", promotion.entry("promoted", "champion", 1, version, "at once")
            )
        except StorageError as error:
            lost.append(str(error))

    threads = [threading.Thread(target=promoter, args=(version,)) for version in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lost) == 1
    assert "by somebody else" in lost[0]
    now = promotion.holder("dytrack", "champion")
    moves = [one for one in promotion.history("dytrack") if one.moved]
    assert moves[-1].after == now


def test_the_lists_show_versions_aliases_and_moves(store, tracker, tmp_path, dytrack):
    results = str(evaluation(tmp_path / "e"))
    assert dytrack("publish", str(tracker), "--evaluation", results, "--promote").returncode == 0
    shown = dytrack("models").stdout
    assert "balanced, candidate, champion" in shown
    assert dytrack("models", "--history").stdout.count("promoted") == 2
    assert dytrack("rollback").returncode == 2
    worse = str(evaluation(tmp_path / "worse", -0.2))
    refused = dytrack("publish", str(tracker), "--evaluation", worse, "--promote")
    assert refused.returncode == 3
    assert "champion stays with version 1" in refused.stdout


def test_a_reference_that_leads_nowhere_is_named(store, tmp_path):
    (tmp_path / "mlflow.db").unlink()
    with pytest.raises(StorageError, match="nothing was recorded or published in it yet"):
        registry.load("models:/nobody@champion")
    tracking.connect()
    with pytest.raises(ModelLookupError, match="models:/nobody@champion: not in the registry"):
        registry.load("models:/nobody@champion")
    with pytest.raises(ModelLookupError, match="no such tracker"):
        registry.load(str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match=r"it has no tracker\.json"):
        registry.load(str(tmp_path))
    (tmp_path / export.DESCRIPTION).write_text("{}")
    with pytest.raises(ModelLookupError, match="is an export, which track, serve and"):
        registry.load(str(tmp_path))

import mlflow
import numpy as np
import pytest
import torch

from dytrack_model import checkpoint
from dytrack_model.config import variant
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import OperatingPoint
from dytrack_platform.errors import CheckpointError, ModelLookupError
from dytrack_platform.experiment.registry import registry

pytestmark = pytest.mark.ray  # no Ray, but MLflow's store takes seconds to make

POINTS = (OperatingPoint(name="balanced", thresholds=(0.5, 0.5)),)


@pytest.fixture
def tracker(tmp_path):
    torch.manual_seed(0)
    return checkpoint.save(tmp_path / "tracker", DyTrackNetwork(variant("test")), POINTS)


def test_a_published_tracker_is_found_by_alias_and_by_version(store, tracker):
    version = registry.publish(
        tracker, "dytrack", alias="champion", run_id=None, tags={"success_auc": "0.5"}
    )
    assert version.uri == "models:/dytrack@champion"
    expected = checkpoint.load(tracker).network.state_dict()
    for reference in (version.uri, "models:/dytrack/1", str(tracker)):
        saved = registry.load(reference)
        assert saved.points == POINTS
        for name, value in saved.network.state_dict().items():
            torch.testing.assert_close(value, expected[name])
    tags = mlflow.MlflowClient().get_model_version("dytrack", "1").tags
    assert tags["exits"] == "[1, 2, 4]"
    assert tags["success_auc"] == "0.5"


def test_mlflow_itself_loads_and_runs_a_published_tracker(store, tracker, made):
    registry.publish(tracker, "dytrack", alias="champion", run_id=None, tags={})
    model = mlflow.pyfunc.load_model("models:/dytrack@champion")
    frames = np.random.default_rng(0).integers(0, 256, (3, 120, 160, 3), dtype=np.uint8)
    box = np.array([[40.0, 30.0, 30.0, 30.0]])
    found = model.predict({"frames": frames, "box": box})
    assert found["boxes"].shape == (3, 4)
    np.testing.assert_allclose(found["boxes"][0], box[0])


def test_a_reference_that_leads_nowhere_is_named(store, tmp_path):
    with pytest.raises(ModelLookupError, match="models:/nobody@champion: not in the registry"):
        registry.load("models:/nobody@champion")
    with pytest.raises(ModelLookupError, match="no such tracker"):
        registry.load(str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match=r"it has no tracker\.json"):
        registry.load(str(tmp_path))

"""What an evaluation's run in MLflow says that it was of."""

import mlflow
import pytest

from dytrack_platform.experiment.evaluate import recording
from dytrack_platform.experiment.registry import registry

ROW = {"name": "fast", "success_auc": 0.5, "gmacs": 0.1, "ms_p50": 2.0}


def summary(data="abc", rejected=()):
    return {
        "dataset": "got10k",
        "protocol": "otb",
        "data": data,
        "points": [ROW],
        "baselines": [{**ROW, "name": "cv2:MIL", "gmacs": None}],
        "rejected": list(rejected),
    }


def test_other_sequences_are_other_data():
    """Two folders of one dataset's name are no place to compare fronts."""
    one, other, same = (
        recording.points_of(summary(data), "x", "test", "here") for data in ("abc", "xyz", "abc")
    )
    assert one.data == same.data != other.data
    assert one.data.startswith("got10k test")


@pytest.mark.slow
def test_a_run_names_the_version_and_not_the_alias_and_what_it_lacks(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    about = recording.Subject(
        tags={"split": "test", "machine": "here", "manifest": "m"}, name="evaluate got10k"
    )
    for name in ("summary.json", "report.html", "pareto.png"):
        (tmp_path / name).write_text("{}")
    run_id = recording.record(tmp_path, summary(rejected=["a", "b"]), about)
    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    assert run.data.tags["rejected"] == "a, b"
    client.create_registered_model("dytrack")
    client.create_model_version(
        "dytrack", str(tmp_path), tags={"lineage.training_run": run.info.run_id}
    )
    client.set_registered_model_alias("dytrack", "champion", "1")
    known = ("dytrack/1", run.info.run_id)
    assert registry.version_of("models:/dytrack@champion") == known
    assert registry.version_of("models:/dytrack/1") == known
    assert registry.version_of("models:/dytrack/latest") == ("dytrack/latest", None)

from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest

from dytrack_model import checkpoint
from dytrack_platform.config import resolve
from dytrack_platform.errors import ConfigurationError, StorageError, TrainingError
from dytrack_platform.experiment.train import train as training
from dytrack_platform.experiment.train.train import train

pytestmark = pytest.mark.ray


CURVES = {
    *(f"train/exit{depth}/{what}" for depth in (1, 2) for what in ("loss", "iou", "iou_error")),
    *("learning_rate/heads", "learning_rate/backbone", "grad_norm/all", "grad_norm/backbone"),
    *("speed/samples_per_s", "speed/data_wait", "speed/step_s", "speed/gflops"),
    *("speed/mfu", "system/cpu_utilization_percentage", "system/worker1/memory_megabytes"),
    *("val/exit2/iou", "val/exit2/iou_error"),
}


def run(values, **changes):
    said, shown = [], []
    overrides = {key.replace("__", "."): value for key, value in changes.items()}
    trained = train(resolve(values, overrides), shown.append, said.append)
    return trained, shown, said


def status_of(run_id):
    return mlflow.MlflowClient().get_run(run_id)


def test_two_workers_train_a_tracker_and_the_same_command_again_does_nothing(
    ray_session, store, values
):
    trained, shown, said = run(values)
    assert all(sentence.startswith("worker ") for sentence in said)
    assert shown[-1].step == shown[-1].steps == 8
    saved = checkpoint.load(trained.tracker)
    assert saved.notes["step"] == 8
    found = status_of(trained.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params["model.exits"] == "[1, 2]"
    assert set(found.data.metrics) >= CURVES
    kept = {file.path for file in mlflow.MlflowClient().list_artifacts(trained.run_id)}
    assert {"recipe.yaml", "environment.txt", "samples"} <= kept
    assert len(found.data.tags["mlflow.source.git.commit"]) == 40
    images = mlflow.MlflowClient().list_artifacts(trained.run_id, "samples")
    assert [Path(file.path).name for file in images] == ["step_00000004.png", "step_00000008.png"]
    _, _, said = run(values)
    assert "already finished" in said[0]


def test_a_name_with_another_configuration_is_refused(ray_session, store, values):
    run(values)
    with pytest.raises(ConfigurationError, match=r"train\.epochs was 2, is 3; 1 in all"):
        run(values, train__epochs=3)


def test_a_job_larger_than_the_cluster_is_refused_at_once(ray_session, store, values):
    refusal = r"train\.workers: 8 workers need 8 CPU, the cluster"
    with pytest.raises(ConfigurationError, match=refusal):
        run(values, train__workers=8)


def test_a_failed_run_is_failed_in_mlflow_with_the_reason(ray_session, store, values):
    with pytest.raises(TrainingError, match="the loss is"):
        run(values, train__head_lr=1e30, train__backbone_lr=1e30, train__workers=1)
    found = mlflow.search_runs(experiment_names=["dytrack"], output_format="list")[0]
    assert found.info.status == "FAILED"
    assert "the loss is" in found.data.tags["failure"]


def test_a_run_that_another_machine_took_over_ends_and_says_so(
    ray_session, store, values, monkeypatch
):
    shown = []

    @contextmanager
    def lost_at_the_first_step(location, say):
        def require():
            if shown:
                raise StorageError("process 7 of elsewhere took over")

        yield require

    monkeypatch.setattr(training, "_only_here", lost_at_the_first_step)
    config = resolve(values, {"train.epochs": 50})
    with pytest.raises(StorageError, match="process 7 of elsewhere took over"):
        train(config, shown.append, print)
    assert shown[-1].step < shown[-1].steps
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.info.status == "FAILED"


def test_validation_runs_beside_training_and_draws_curves(ray_session, store, values):
    trained, _, _ = run(values, train__validate_every=1, train__workers=1)
    history = mlflow.MlflowClient().get_metric_history(trained.run_id, "val/exit2/iou")
    assert {point.step for point in history} == {3, 6, 8}

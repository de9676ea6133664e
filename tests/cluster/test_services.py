"""Everything from a laptop: jobs on a cluster, MLflow on PostgreSQL, data and runs in a bucket."""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from tests.cluster.services import BUCKET, DYTRACK, Services, ray_head, why_not

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def services():
    reason = why_not()
    if reason:
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="dyts", dir="/tmp"))
    running = Services(folder)
    try:
        yield running.start_all()
    finally:
        running.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def head(services):
    """A head that has the secrets of the store, and dytrack's dependencies only."""
    folder, log = services.folder / "ray", services.folder / "head.log"
    with ray_head(folder, log, services.environment, cpus=3) as address:
        yield address


@pytest.fixture
def dytrack(services, tmp_path):
    def run(*words):
        done = subprocess.run(
            [*DYTRACK, *map(str, words)],
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**services.environment, "MLFLOW_TRACKING_URI": services.mlflow},
            cwd=tmp_path,
        )
        assert "hush" not in done.stdout + done.stderr
        return done

    return run


def _recipe(services, name):
    return {
        "name": name,
        "model": {"variant": "test", "depth": 2, "exits": [1, 2], "width": 32, "heads": 2},
        "data": {
            "train": [{"path": f"s3://{BUCKET}/clips"}],
            "pairs_per_epoch": 80,
            "validation_pairs": 8,
            "pairs_per_clip": 4,
        },
        "train": {
            "epochs": 3,
            "batch_size": 8,
            "storage": f"s3://{BUCKET}/runs",
            "checkpoint_steps": 5,
            "report_steps": 1,
        },
    }


@pytest.fixture(scope="module")
def clips(services, head, made, tmp_path_factory):
    """Clips that a job prepared, in the bucket."""
    words = ["prepare", "--dataset", "got10k", "--root", made, "--split", "train"]
    words += ["--out", f"s3://{BUCKET}/clips", "--search-size", 128, "--frames", 8]
    done = subprocess.run(
        [*DYTRACK, "submit", "--address", head, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**services.environment, "MLFLOW_TRACKING_URI": services.mlflow},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return f"s3://{BUCKET}/clips"


def test_from_raw_data_to_boxes_on_the_laptop(dytrack, services, head, clips, made, tmp_path):
    recipe = tmp_path / "far.yaml"
    recipe.write_text(yaml.safe_dump(_recipe(services, "far")))
    submit = ("submit", "--address", head)
    trained = dytrack(*submit, "train", recipe)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    published = dytrack(*submit, "publish", f"s3://{BUCKET}/runs/far")
    assert published.returncode == 0, published.stdout + published.stderr
    evaluated = dytrack(
        *(*submit, "evaluate", "--model", "models:/dytrack@candidate", "--dataset", "got10k"),
        *("--root", made, "--split", "test", "--out", tmp_path / "results", "--point", "full"),
    )
    assert evaluated.returncode == 0, evaluated.stdout + evaluated.stderr
    assert (tmp_path / "results" / "report.html").is_file()
    # The champion comes to the laptop through the server.
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (96, 64))
    for _ in range(6):
        writer.write(np.zeros((64, 96, 3), np.uint8))
    writer.release()
    tracked = dytrack(
        *("track", "v.avi", "--init", "10,10,20,20", "--model", "models:/dytrack@candidate"),
        *("--point", "full", "--csv", "boxes.csv"),
    )
    assert tracked.returncode == 0, tracked.stdout + tracked.stderr
    assert len((tmp_path / "boxes.csv").read_text().splitlines()) == 7


@pytest.mark.parametrize("service", ["mlflow", "postgres"])
def test_a_service_that_dies_under_a_training_costs_nothing(
    dytrack, services, head, clips, tmp_path, service
):
    values = _recipe(services, f"without-{service}")
    values["train"]["epochs"] = 12
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump(values))
    sent = dytrack(
        "submit", "--detach", "--name", f"no-{service}", "--address", head, "train", recipe
    )
    assert sent.returncode == 0, sent.stderr
    deadline = time.monotonic() + 200
    while "step" not in dytrack("jobs", "logs", f"no-{service}", "--address", head).stdout:
        assert time.monotonic() < deadline
        time.sleep(1)
    services.kill(service)
    time.sleep(8)
    services.start(service)
    done = dytrack("jobs", "attach", f"no-{service}", "--address", head)
    assert done.returncode == 0, done.stdout + done.stderr
    import mlflow

    client = mlflow.MlflowClient(services.mlflow)
    experiment = client.get_experiment_by_name("dytrack")
    runs = client.search_runs(
        [experiment.experiment_id], f"attributes.run_name = 'without-{service}'"
    )
    (run,) = runs
    assert run.info.status == "FINISHED"
    steps = {point.step for point in client.get_metric_history(run.info.run_id, "train/loss")}
    assert steps == set(range(1, 121))

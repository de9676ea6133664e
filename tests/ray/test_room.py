"""Work that is too large for a real cluster without an autoscaler: refused, soon, in a sentence."""

import os
import subprocess
import sys
import time

import pytest
import ray

from tests import load

pytestmark = pytest.mark.ray

DYTRACK = [sys.executable, "-m", "dytrack_pipelines.cli"]
LONGEST_S = 20.0
WORK = {
    "train": "train.workers: 8 workers need 8 CPU, the cluster has 4 after 5 s; lower train.",
    "search": "train.workers: in each trial 2 workers need 2 GPU, the cluster has 0 after 5 s; ",
    "evaluate": "8 workers need 8 CPU, the cluster has 4 after 5 s; ask for fewer with --workers",
    "serve": "--replicas: 8 workers need 8 CPU, the cluster has 4 after 5 s; lower --replicas ",
}


@pytest.mark.parametrize("work", WORK)
def test_what_a_cluster_has_no_room_for_is_refused(
    work, ray_session, recipe_file, made, store, tmp_path, record_property
):
    data = ["--dataset", "got10k", "--root", made, "--split", "test"]
    share = ["--set", "data.validation_share=0.4", "--set", "train.batch_size=4"]
    words = {
        "train": ["train", recipe_file, "--set", "train.workers=8"],
        "search": ["search", recipe_file, "--set", "train.gpu=true", *share],
        "evaluate": ["evaluate", *data, "--out", "out", "--model", "reference", "--workers", "8"],
        "serve": ["serve", "--model", "reference", "--replicas", "8", "--port", "8765"],
    }[work]
    began = time.monotonic()
    done = subprocess.run(
        [*DYTRACK, *map(str, words)],
        env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    took = time.monotonic() - began
    record_property("seconds", round(took, 1))
    assert done.returncode == 2, done.stdout + done.stderr
    said = " ".join(done.stderr.split())
    assert f"error: {WORK[work]}" in said, said
    assert "Traceback" not in said
    assert took <= load.allowed(LONGEST_S)

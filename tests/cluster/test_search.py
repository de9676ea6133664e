"""A search that is submitted to a cluster of two hosts trains on both."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.cluster.hosts import Hosts, why_not

pytestmark = pytest.mark.cluster


def test_a_search_uses_both_hosts(made_clips, tmp_path):
    reason = why_not()
    if reason:
        pytest.skip(reason)
    folder = Path("/tmp") / f"dys{os.getpid()}"  # sockets' paths may not be long
    folder.mkdir()
    hosts = Hosts(2, folder)
    try:
        for host in (0, 1):
            hosts.ray(host, cpus=1)
        recipe = tmp_path / "r.yaml"
        recipe.write_text(yaml.safe_dump(values(made_clips, tmp_path)))
        store = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
        environment = {**store, "RAY_ADDRESS": hosts.address}
        words = [sys.executable, "-m", "dytrack_pipelines.cli", "search", str(recipe)]
        process = hosts.start(0, *words, log="search.log", environment=environment)
        location = tmp_path / "runs" / "tiny-search"
        deadline = time.monotonic() + 400
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.5)
        said = (folder / "search.log").read_text()
        assert process.returncode == 0, said
        trials = json.loads((location / "search.json").read_text())["trials"]
        assert {trial["status"] for trial in trials} <= {"finished", "stopped"}, said
        assert {trial["host"] for trial in trials} == set(hosts.addresses)
        assert (location / "front.json").is_file()
    finally:
        hosts.close()
        shutil.rmtree(folder, ignore_errors=True)


def values(clips, folder):
    return {
        "name": "tiny",
        "model": {"variant": "test", "depth": 2, "exits": [1, 2], "width": 32, "heads": 2},
        "data": {
            "train": [{"path": str(clips)}],
            # Long enough that the second host has started its process before all is done.
            "pairs_per_epoch": 800,
            "validation_pairs": 8,
            "validation_share": 0.3,
            "pairs_per_clip": 4,
        },
        "train": {"batch_size": 4, "storage": str(folder / "runs")},
        "search": {
            "trials": 6,
            "scheduler": "none",
            "max_concurrent": 2,
            "space": {
                "model.exits": {"placements": {"count": [1, 2]}},
                "train.head_lr": {"loguniform": [1e-4, 1e-2]},
            },
        },
    }

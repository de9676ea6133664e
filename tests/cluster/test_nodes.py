"""Our pools, pipelines and searches over many logical nodes, with nothing in their tasks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]


def test_work_reaches_every_one_of_several_nodes():
    words = ["--nodes", "3", "--shards", "15", "--checkpoints", "10", "--trials", "4"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.scaling_nodes", *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["raylets"]["processes"] == 4, "one for each node, and the head's"
    assert found["preparation"]["shards"] == 15
    assert found["evaluation"]["pieces"] == 100
    assert found["search"]["trials"] == 4
    # Shards that take no time may all go to the worker that is up first.
    assert found["evaluation"]["on_nodes"] == 3
    assert found["search"]["on_nodes"] >= 2

"""What the doctor hears from the nodes of a real cluster, when one of them hangs."""

import json
import os
import signal
import subprocess
import sys

import pytest
from ray.cluster_utils import Cluster

pytestmark = pytest.mark.ray

GATHER = """
import json, sys, time
from dytrack_platform.experiment.doctor import node_survey
began = time.monotonic()
found = node_survey.gather(sys.argv[1], ["/no/such"])
print(json.dumps([*found, time.monotonic() - began]))
"""


@pytest.fixture
def cluster():
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield made
    made.shutdown()


def test_a_node_that_hangs_is_named_and_the_others_are_heard(cluster, tmp_path):
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()

    def gather():
        done = subprocess.run(
            [sys.executable, "-c", GATHER, str(tmp_path)],
            env={**os.environ, "RAY_ADDRESS": cluster.address},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    facts, silent, scaled, _ = gather()
    assert [(fact["storage"], fact["unreadable"]) for fact in facts] == [("", ["/no/such"])] * 2
    assert all(fact["rays"] >= 2 and fact["gpu"]["count"] == 0 for fact in facts)
    assert silent == []
    assert not scaled
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
    raylet = node.all_processes["raylet"][0].process.pid
    os.kill(raylet, signal.SIGSTOP)
    try:
        facts, silent, _, took = gather()
    finally:
        os.kill(raylet, signal.SIGCONT)
    assert took < 20
    assert len(facts) == 1
    assert len(silent) == 1
    assert "does not answer within 8 s" in silent[0]

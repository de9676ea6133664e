"""What Ray itself costs on many nodes: our own pools and searches with nothing in their tasks.

    python -m tests.benchmarks.scaling_nodes --nodes 100

Ray's own cluster utilities start a raylet for each node, all on this machine. What a raylet brings
beside itself (agents of 215 MB, for the dashboard and for runtime environments) only the head has:
for each other a process sleeps, and raylets ask the head's, or 100 nodes would not fit. A node has
one CPU, and so one worker; real nodes have more, which the same scheduler sees as more CPUs. Three
things are timed, and apart from them how long workers take to start, for those share this
machine's few cores:

- a preparation: the shards of COCO's plan, through the pipeline of ``dytrack prepare``;
- an evaluation: 1,000 checkpoints of ten sequences each, through the pool of ``dytrack evaluate``;
- a search: 200 trials that report twice, through ``run_trials``.

The last line is JSON: seconds, pieces a second, megabytes of the driver at most, of the object
store and of all raylets. Nothing here is a network: all nodes share the loopback.
"""

import argparse
import contextlib
import json
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import psutil

from dytrack_platform.experiment.cluster import session  # noqa: F401  (Ray's environment first)

import ray  # isort: skip
import ray.tune
from ray._private import services
from ray._private.internal_api import get_memory_info_reply, get_state_from_address
from ray.cluster_utils import Cluster

from dytrack_platform.config import resolve
from dytrack_platform.datasets.io.frames import ImageFrames
from dytrack_platform.datasets.prepared.shards import ShardJob, ShardSummary
from dytrack_platform.datasets.prepared.windows import ClipConfig
from dytrack_platform.datasets.sequence import VideoSequence
from dytrack_platform.experiment import ingest
from dytrack_platform.experiment.evaluate.actor_pool import ActorPool
from dytrack_platform.experiment.search.trials import full
from dytrack_platform.experiment.search.trials.record import SearchRecord
from dytrack_platform.experiment.search.trials.trial import Job
from dytrack_platform.storage.tree import Tree

_AGENTS = (
    *("metrics_agent_port", "metrics_export_port"),
    *("dashboard_agent_listen_port", "runtime_env_agent_port"),
)
_PATIENT = {  # 100 raylets on two cores answer late, which is no death
    "RAY_health_check_initial_delay_ms": "60000",
    "RAY_health_check_period_ms": "10000",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_raylet_start_wait_time_s": "120",
}
_STORE = 80_000_000
_HEAD_STORE = 2_000_000_000


@contextlib.contextmanager
def logical_nodes(count):
    """Run a cluster of so many nodes with one CPU each, beside a head without; connects to it."""
    start, agents = services.start_ray_process, {}

    def lean(command, process_type, *words, **named):
        if process_type == "raylet" and agents:
            command = list(map(_without_agent, command))
            given = dict(w[2:].split("=", 1) for w in command if w.startswith("--") and "=" in w)
            for name, port in agents.items():  # where a raylet looks for its agents' ports
                Path(given["session_dir"], f"{name}_{given['node_id']}").write_text(str(port))
        return start(command, process_type, *words, **named)

    with (
        mock.patch.dict(os.environ, _PATIENT),
        mock.patch.object(services, "start_ray_process", lean),
    ):
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": _HEAD_STORE}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        agents |= {name: getattr(cluster.head_node, name) for name in _AGENTS}
        try:
            for _ in range(count):
                cluster.add_node(wait=False, num_cpus=1, object_store_memory=_STORE)
            cluster.wait_for_nodes(timeout=300)
            ray.init(cluster.address, log_to_driver=False, logging_level="WARNING")
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


def _without_agent(word):
    name = word.partition("=")[0]
    if name in ("--dashboard_agent_command", "--runtime_env_agent_command"):
        return f"{name}={shutil.which('sleep')} 86400"
    return "--num_prestart_python_workers=0" if name.startswith("--num_prestart") else word


class Watch:
    """Notes the most memory of the driver and of the object store while the body runs."""

    def __init__(self, address):
        self._state = get_state_from_address(address)
        self._done = threading.Event()
        self.driver = self.store = 0.0
        self._process = psutil.Process()
        self.before = self._process.memory_info().rss / 1e6

    def __enter__(self):
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _look(self):
        while not self._done.wait(0.5):
            self.driver = max(self.driver, self._process.memory_info().rss / 1e6)
            used = get_memory_info_reply(self._state).store_stats.object_store_bytes_used
            self.store = max(self.store, used / 1e6)

    def said(self):
        return {
            "driver_mb_more": round(self.driver - self.before),
            "driver_mb": round(self.driver),
            "store_mb": round(self.store),
        }


def node():
    """Return the id of the node that this runs on."""
    return ray.get_runtime_context().get_node_id()


class Nothing(ingest._ShardWriter):
    """Takes a shard's job as the real one does, and writes nothing; says where."""

    def __call__(self, row):
        job = ray.get(self._jobs[row["number"]])
        summary = ShardSummary(node(), (), ())
        return {"file": job.file, "summary": summary.to_json(), "failure": ""}


def shards(count, members=1024):
    """Jobs as large as COCO's: so many sequences of one box each."""
    seen, boxes = np.array([True]), np.random.default_rng(0).uniform(1, 400, (members, 4))
    tree = Tree("/data/coco/train2017")
    return tuple(
        ShardJob(
            out="/out",
            file=f"part-{number:05d}.parquet",
            sequences=tuple(
                VideoSequence(
                    dataset="coco",
                    name=f"{number:06d}{row:06d}#{number * members + row}",
                    frames=ImageFrames(tree, (f"{number:06d}{row:06d}.jpg",)),
                    boxes_xywh=boxes[row : row + 1],
                    visible=seen,
                )
                for row in range(members)
            ),
            config=ClipConfig(search_size=128),
            plan=f"{number:064x}",
        )
        for number in range(count)
    )


def preparation(address, count):
    """Hand so many shards to the pipeline of a preparation."""
    jobs = shards(count)
    planned = SimpleNamespace(missing=jobs, partition=SimpleNamespace(root="/out"))
    written, times = {}, []
    with Watch(address) as watch, mock.patch.object(ingest, "_ShardWriter", Nothing):
        began = time.monotonic()
        ingest._write_all(planned, written, lambda: times.append(time.monotonic()))
        took = time.monotonic() - began
    assert len(written) == count
    return {
        "shards": count,
        "on_nodes": len({summary.plan for summary in written.values()}),
        "seconds": round(took, 2),
        "until_first_s": round(times[0] - began, 2),
        "shards_a_second_then": round((len(times) - 1) / max(1e-9, times[-1] - times[0]), 1),
        **watch.said(),
    }


@ray.remote(num_cpus=1)
class Judge:
    """Stands for a worker that holds a tracker."""

    def evaluate(self, spec, sequence):
        return node()


def evaluation(address, nodes, checkpoints, sequences=10):
    """Hand the sequences of so many checkpoints to a pool with a worker on each node."""
    boxes = np.zeros((117, 4))  # GOT-10k's mean length
    work = [
        ({"number": number}, {"name": f"GOT-10k_Val_{k:06d}", "boxes": boxes})
        for number in range(checkpoints)
        for k in range(sequences)
    ]
    with Watch(address) as watch:
        began = time.monotonic()
        pool = ActorPool(Judge.remote, nodes)
        ray.get([actor.evaluate.remote({"number": 0}, None) for actor in pool.actors])
        up = time.monotonic()
        where = [outcome for _, outcome in pool.run(work)]
        took = time.monotonic() - up
    for actor in pool.actors:
        ray.kill(actor)
    assert len(where) == len(work)
    return {
        "checkpoints": checkpoints,
        "pieces": len(where),
        "on_nodes": len(set(where)),
        "workers_up_s": round(up - began, 2),
        "seconds": round(took, 2),
        "pieces_a_second": round(len(where) / took, 1),
        **watch.said(),
    }


def trial(drawn, job):
    """Stands for a trial: reports twice."""
    value = 0.1 + 1e-3 * int(drawn["number"])
    point = {"exits": [2], "thresholds": [], "shares": [1.0], "by_sequence": {}}
    points = [{**point, "values": {"iou": value, "gmacs": 0.5}}]
    for epoch in (1, 2):
        ray.tune.report(
            {
                "epoch": epoch,
                "hypervolume": value,
                "points": json.dumps(points),
                "seconds": {"steps": 0.0, "evaluation": 0.0},
                "losses": {"node": node()},
                "memory_megabytes": 1.0,
            }
        )


def search(address, nodes, trials):
    """Run so many trials of nothing, one on each node at a time."""
    with tempfile.TemporaryDirectory(prefix="dytrack-") as folder:
        values = {
            "name": "nothing",
            "model": {"variant": "test", "depth": 4, "exits": [2, 4], "width": 32, "heads": 2},
            "train": {"storage": folder},
            "search": {
                "trials": trials,
                "epochs": 2,
                "max_concurrent": nodes,
                "space": {
                    "distillation.feature": {"loguniform": [0.01, 1.0]},
                    "model.recycling": {"choice": ["none", "cascade"]},
                },
            },
        }
        config = resolve(values, {})
        record = SearchRecord.open(folder, "full", config, {})
        job = Job(recipe={}, reference=(0.0, 1.0), location=folder)
        with Watch(address) as watch, mock.patch.object(full, "_train", trial):
            began = time.monotonic()
            full.run_trials(config, job, record, full.Watching())
            took = time.monotonic() - began
    states = [one.status for one in record.trials]
    assert states.count("finished") + states.count("stopped") == trials, states
    return {
        "trials": trials,
        "on_nodes": len({one.reports[0]["losses"]["node"] for one in record.trials}),
        "seconds": round(took, 2),
        "seconds_a_trial": round(took / trials, 3),
        **watch.said(),
    }


def memory(names):
    """Return how many processes of these names this machine has below this one, and their MB."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() in names:
                found.append(process.memory_info().rss / 1e6)
    return {"processes": len(found), "mb": round(sum(found))}


def measure(nodes, shard_count=840, checkpoints=1000, trials=200):
    """Measure all three on a cluster of so many nodes."""
    began = time.monotonic()
    with logical_nodes(nodes) as cluster:
        result = {
            "nodes": nodes,
            "load": os.getloadavg()[0],
            "cluster_up_s": round(time.monotonic() - began, 1),
            "raylets": memory(("raylet",)),
            "gcs": memory(("gcs_server",)),
        }
        for name, call in {
            "preparation": lambda: preparation(cluster.address, shard_count),
            "evaluation": lambda: evaluation(cluster.address, nodes, checkpoints),
            "search": lambda: search(cluster.address, nodes, trials),
        }.items():
            result[name] = call()
            print(name, result[name], flush=True)
        result["gcs_after"] = memory(("gcs_server",))
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--shards", type=int, default=840)
    parser.add_argument("--checkpoints", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=200)
    given = parser.parse_args()
    print(json.dumps(measure(given.nodes, given.shards, given.checkpoints, given.trials)))


if __name__ == "__main__":
    main()

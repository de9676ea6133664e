"""Whether a cluster has room, how long it is waited for, and what an autoscaler is told."""

import json
import time
from types import SimpleNamespace

import pytest

from dytrack_platform.experiment.cluster import room

NODE = "7ed6c030a157"
GPU = {"CPU": 1.0, "GPU": 1.0}


@pytest.fixture
def cluster(monkeypatch):
    """A cluster with two CPUs; ``after`` seconds it also has ``more``."""
    began = time.monotonic()
    state = SimpleNamespace(
        began=began, after=1e9, more={}, scaled=False, joined=True, demand=[], said=[]
    )

    def resources():
        return {"CPU": 2.0} | (state.more if time.monotonic() - began > state.after else {})

    monkeypatch.setattr(room.session, "resources", resources)
    monkeypatch.setattr(room.session, "joined", lambda: state.joined)
    monkeypatch.setattr(room, "autoscaled", lambda: state.scaled)
    monkeypatch.setattr(room, "placement_group", lambda some: state.demand.append(some) or "group")
    monkeypatch.setattr(room, "remove_placement_group", state.demand.append)
    monkeypatch.setattr(room, "_POLL_S", 0.02)
    monkeypatch.setattr(room, "_JOINING_S", 0.2)
    monkeypatch.setattr(room, "_SCALING_S", 0.6)
    return state


def test_what_fits_is_not_waited_for(cluster):
    assert room.lacking([{"CPU": 1.0}] * 2, cluster.said.append) == ""
    thirds = [{"CPU": 0.5, "GPU": 1 / 3}] * 3
    cluster.more, cluster.after = {"GPU": 1.0}, -1.0
    assert room.lacking(thirds, cluster.said.append) == "", "three shares are one GPU"
    assert cluster.said == []


def test_a_ray_of_this_machine_gets_no_more_nodes(cluster):
    cluster.joined = False
    lack = room.lacking([{"CPU": 2.0}] * 4, cluster.said.append)
    assert lack == "4 workers need 8 CPU, the cluster has 2"
    assert cluster.said == []


def test_nothing_that_could_supply_it_is_said_soon_whatever_was_allowed(cluster):
    lack = room.lacking([GPU], cluster.said.append, timeout_s=60.0)
    assert lack == "a worker needs 1 GPU, the cluster has 0 after 0.2 s"
    assert cluster.said == [
        "waiting up to 0.2 s for nodes: a worker needs 1 GPU, the cluster has 0"
    ]
    assert cluster.demand == [], "nobody would look at it"


def test_a_node_that_joins_meanwhile_counts(cluster):
    cluster.more, cluster.after = {"GPU": 1.0}, 0.1
    assert room.lacking([GPU], cluster.said.append) == ""


def test_an_autoscaler_is_asked_and_gets_longer(cluster):
    cluster.scaled, cluster.more, cluster.after = True, {"GPU": 2.0}, 0.4
    assert room.lacking([GPU, GPU], cluster.said.append, timeout_s=0.1) == ""
    assert cluster.demand == [[GPU, GPU], "group"], "asked for, and taken back"
    assert cluster.said[0].startswith("waiting up to 0.6 s for the autoscaler's nodes: 2 workers")


def test_what_was_asked_for_is_taken_back_by_ctrl_c_too(cluster, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    cluster.scaled = True
    monkeypatch.setattr(room.time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        room.lacking([GPU], cluster.said.append)
    assert cluster.demand == [[GPU], "group"]


@pytest.mark.parametrize(
    ("told", "scaled"),
    [
        (None, False),
        ({"load_metrics_report": {}}, False),
        ({"autoscaler_report": {"node_type_mapping": None}}, False),
        # As Ray 2.60 tells it: a head by itself, and one with kinds of nodes.
        ({"autoscaler_report": {"node_type_mapping": {NODE: f"node_{NODE}"}}}, False),
        ({"autoscaler_report": {"node_type_mapping": {NODE: "ray.head.default"}}}, True),
    ],
)
def test_an_autoscaler_is_known_by_its_kinds_of_nodes(monkeypatch, told, scaled):
    monkeypatch.setattr(room, "is_autoscaler_v2", lambda **_: False)
    said = None if told is None else json.dumps(told).encode()
    monkeypatch.setattr(room, "_internal_kv_get", lambda _: said)
    assert room.autoscaled() is scaled


@pytest.mark.parametrize(("kind", "scaled"), [(f"node_{NODE}", False), ("headgroup", True)])
def test_the_second_autoscaler_too(monkeypatch, kind, scaled):
    node = SimpleNamespace(node_id=NODE, ray_node_type_name=kind)
    status = SimpleNamespace(active_nodes=[], idle_nodes=[node])
    monkeypatch.setattr(room, "is_autoscaler_v2", lambda **_: True)
    monkeypatch.setattr(room, "get_cluster_status", lambda _: status)
    context = SimpleNamespace(gcs_address="head:6379")
    monkeypatch.setattr(room.ray, "get_runtime_context", lambda: context)
    assert room.autoscaled() is scaled


def test_a_training_a_search_and_an_evaluation_are_refused_with_what_to_change(cluster):
    from dytrack_platform.config import resolve
    from dytrack_platform.errors import ConfigurationError
    from dytrack_platform.experiment.cluster import preflight

    def config(**train):
        return resolve({"name": "r", "data": {"train": [{"path": "x"}]}, "train": train})

    say = cluster.said.append
    eight = r"^train.workers: 8 workers need 8 CPU, the cluster has 2 after 0.2 s; lower"
    with pytest.raises(ConfigurationError, match=eight):
        preflight.require_room(config(workers=8), say)
    preflight.require_room(config(workers=3, min_workers=2, batch_size=24), say)
    with pytest.raises(
        ConfigurationError, match=r"^train.workers: in each trial a worker needs 1 GPU"
    ):
        preflight.require_room_for_trial(config(workers=1, gpu=True), say)
    preflight.require_room_for_trial(config(workers=1), say)


def test_a_server_waits_for_nodes_and_asks_an_autoscaler_as_others_do(cluster):
    from dytrack_platform.errors import ConfigurationError
    from dytrack_platform.experiment.serve.deployment import ServeConfig, _require_room

    with pytest.raises(
        ConfigurationError,
        match=r"^--replicas: 3 workers need 6 CPU, the cluster has 2 after 0.2 s; lower --replicas",
    ):
        _require_room(ServeConfig(models=("reference",), replicas=3, threads=2))
    with pytest.raises(ConfigurationError, match=r"2 workers need 2 GPU.*; use --device cpu"):
        _require_room(ServeConfig(models=("reference",), replicas=2, device="cuda"))
    soon = time.monotonic() - cluster.began + 0.3
    cluster.scaled, cluster.more, cluster.after = True, {"GPU": 2.0}, soon
    _require_room(ServeConfig(models=("reference",), replicas=2, device="cuda"))
    assert cluster.demand == [[GPU, GPU], "group"]

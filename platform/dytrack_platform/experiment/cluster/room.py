"""Wait until a cluster has room for some workers, and have an autoscaler make it."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from dytrack_platform.experiment.cluster import session  # sets Ray's environment first

import ray  # isort: skip
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.experimental.internal_kv import _internal_kv_get
from ray.util.placement_group import placement_group, remove_placement_group

Bundle = Mapping[str, float]
_JOINING_S = 5.0
"""At most so long for nodes that somebody starts by hand; nothing says that any will come."""
_SCALING_S = 900.0
"""At least so long for an autoscaler: a machine starts, and loads an image of gigabytes."""
_POLL_S = 1.0
_STATUS = "__autoscaling_status"


def lacking(
    workers: Sequence[Bundle],
    say: Callable[[str], None],
    timeout_s: float = _JOINING_S,
) -> str:
    """Wait for nodes until the cluster has what workers need together.

    A Ray that was started here has all the nodes that it will ever have. A cluster gets
    ``timeout_s``, but at most five seconds where nodes are started by hand, and at least fifteen
    minutes where an autoscaler starts them.

    Args:
        workers: What each of them needs.
        say: Called where there is something to wait for.
        timeout_s: How long nodes may take.

    Returns:
        What there is too little of, in a sentence without an end; empty where there is room.
    """
    kinds = dict.fromkeys(kind for bundle in workers for kind in bundle)
    needs = {kind: sum(bundle.get(kind, 0.0) for bundle in workers) for kind in kinds}
    if not (lack := _lack(needs, len(workers))) or not session.joined():
        return lack
    began = time.monotonic()
    scaled = autoscaled()
    patience = max(timeout_s, _SCALING_S) if scaled else min(timeout_s, _JOINING_S)
    whose = "the autoscaler's nodes" if scaled else "nodes"
    say(f"waiting up to {patience:g} s for {whose}: {lack}")
    with _demand(workers if scaled else ()):
        while lack and time.monotonic() - began < patience:
            time.sleep(_POLL_S)
            lack = _lack(needs, len(workers))
    return f"{lack} after {patience:g} s" if lack else ""


def autoscaled() -> bool:
    """Say whether nodes come where work waits for them.

    A cluster without an autoscaler runs its monitor all the same; it then has no kinds of nodes,
    or calls every node a kind of its own.
    """
    # By ray:// only a task on the cluster can look.
    if ray.util.client.ray.is_connected():  # type: ignore[no-untyped-call]
        found: bool = ray.get(ray.remote(num_cpus=0)(_scaled).remote())
        return found
    return _scaled()


def _scaled() -> bool:
    if is_autoscaler_v2(fetch_from_server=True):
        status = get_cluster_status(ray.get_runtime_context().gcs_address)
        nodes = (*status.active_nodes, *status.idle_nodes)
        kinds = {node.node_id: node.ray_node_type_name for node in nodes}
    else:
        told = _internal_kv_get(_STATUS)
        report = (json.loads(told).get("autoscaler_report") if told else None) or {}
        kinds = report.get("node_type_mapping") or {}
    return any(kind != f"node_{node}" for node, kind in kinds.items())


@contextmanager
def _demand(workers: Sequence[Bundle]) -> Iterator[None]:
    """Have an autoscaler see what is needed, as long as this process waits for it.

    As a placement group, which goes with its driver; ``request_resources`` would hold machines,
    and cost money, after a driver that was killed.
    """
    group = placement_group([dict(bundle) for bundle in workers]) if workers else None
    try:
        yield
    finally:
        if group is not None:
            remove_placement_group(group)


def _lack(needs: Mapping[str, float], workers: int) -> str:
    has = session.resources()
    for kind, count in needs.items():
        there = has.get(kind, 0.0)
        if there < count - 1e-6:  # shares of a GPU do not quite make one
            who = f"{workers} workers need" if workers > 1 else "a worker needs"
            return f"{who} {count:g} {kind}, the cluster has {there:g}"
    return ""

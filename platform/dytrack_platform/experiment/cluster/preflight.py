"""Look at the nodes before a training starts: room for the workers, and storage that they share."""

import socket
import uuid
from collections.abc import Callable
from pathlib import Path

from dytrack_platform.experiment.cluster import room  # sets Ray's environment first
from dytrack_platform.storage import files

import ray  # isort: skip
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
    get_or_create_autoscaling_coordinator,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dytrack_platform.config import ExperimentConfig
from dytrack_platform.datasets.prepared.manifest import MANIFEST, partitions
from dytrack_platform.errors import ClusterError, ConfigurationError, DataError, first_line


def wake() -> None:
    """Have Ray start the process that a training's controller would wait for first.

    The coordinator of autoscaling takes a second and a half to come up; started here, it does so
    while the driver is at other work. It belongs to Ray and stays.
    """
    get_or_create_autoscaling_coordinator()  # type: ignore[no-untyped-call]


def require_room(config: ExperimentConfig, say: Callable[[str], None]) -> None:
    """Say what Ray would otherwise wait for without end.

    On a cluster, nodes may still be coming: see :func:`room.lacking`.

    Raises:
        ConfigurationError: There are fewer CPUs or GPUs than the workers need.
    """
    settings = config.train
    bundle = {"CPU": settings.cpus_per_worker} | ({"GPU": 1.0} if settings.gpu else {})
    workers = [bundle] * (settings.min_workers or settings.workers)
    if lack := room.lacking(workers, say, settings.start_timeout_s):
        raise ConfigurationError(f"train.workers: {lack}; lower train.workers or add nodes")


def require_room_for_trial(config: ExperimentConfig, say: Callable[[str], None]) -> None:
    """As :func:`require_room`, for one trial of a search; Tune would wait without a word.

    Raises:
        ConfigurationError: There are fewer CPUs or GPUs than a trial needs.
    """
    settings = config.train
    bundle = {"CPU": settings.cpus_per_worker}
    if settings.gpu:
        bundle["GPU"] = config.search.gpu_share if settings.workers == 1 else 1.0
    if lack := room.lacking([bundle] * settings.workers, say, settings.start_timeout_s):
        raise ConfigurationError(
            f"train.workers: in each trial {lack}; lower train.workers or add nodes"
        )


def require_shared(config: ExperimentConfig, location: str) -> None:
    """Have every node that could get a worker read what the driver wrote, and find the data.

    Args:
        config: The experiment, with absolute paths.
        location: The run's folder.

    Raises:
        ConfigurationError: A node does not see the run's folder as the driver does.
        DataError: A node does not see a prepared folder or the initial weights.
    """
    kind = "GPU" if config.train.gpu else "CPU"
    alive = ray.nodes()  # type: ignore[no-untyped-call]
    nodes = [n for n in alive if n["Alive"] and n["Resources"].get(kind, 0.0) > 0]
    if len(nodes) < 2:
        return
    # A fresh word: a file of the same name that an earlier run left on a node's own disk must not
    # pass.
    word = uuid.uuid4().hex
    mark = f"{location}/.shared-{word}.json"
    sources = (*config.data.train, *config.data.validation)
    # An empty folder of the same name, where a disk is not mounted, is not the data.
    local = [source.path for source in sources if "://" not in source.path]
    wanted = [tree.path(MANIFEST) for path in local for tree in partitions(path, finished=False)]
    if config.train.init_from is not None:
        wanted.append(config.train.init_from)
    files.write_json(mark, {"word": word})
    try:
        # A list, for one host may run several nodes, each with its own view of the folders.
        looks = [
            _look.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(mark, word, wanted)
            for node in nodes
        ]
        seen = ray.get(looks, timeout=config.train.start_timeout_s)
    except (ray.exceptions.RayError, TimeoutError) as error:
        raise ClusterError(f"a node does not answer: {first_line(error)}") from error
    finally:
        files.remove(mark)
    names = [f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})" for node in nodes]
    found = list(zip(names, seen, strict=True))
    blind = [node for node, (sees, _) in found if not sees]
    if blind:
        raise ConfigurationError(
            f"train.storage: {location}, written on {socket.gethostname()}, is not seen on "
            f"{len(blind)} of {len(nodes)} nodes: {', '.join(blind)}; name a folder that all nodes "
            "share (NFS, or an object store's URL): checkpoints on one node are of no use to others"
        )
    for node, (_, missing) in found:
        if missing:
            raise DataError(
                f"{missing[0]}: is not there on node {node}, where a worker may run; put the data "
                "on a folder that all nodes share, or copy it to the same path on each"
            )


@ray.remote(num_cpus=0)
def _look(mark: str, word: str, wanted: list[str]) -> tuple[bool, list[str]]:
    """Say whether this node reads the word, and which of the paths it lacks."""
    content = files.read_json(mark)
    sees = content is not None and content.get("word") == word
    return sees, [path for path in wanted if not Path(path).exists()]

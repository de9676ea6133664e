"""Have every node of a cluster say what it is: :mod:`survey`, as a task on each."""

import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from dytrack_platform.experiment.cluster import room, session  # sets Ray's environment

import ray  # isort: skip
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dytrack_platform.errors import DyTrackError
from dytrack_platform.experiment.doctor import survey
from dytrack_platform.storage import files

_WAIT_S = 8.0


class Gathered(NamedTuple):
    """What a cluster says."""

    facts: list[dict[str, Any]]
    """Of each node that answers."""
    silent: list[str]
    """A sentence for each that does not."""
    scaled: bool
    """An autoscaler may bring more nodes."""


def gather(storage: str | None, data: Sequence[str]) -> Gathered:
    """Ask all nodes of the cluster of ``RAY_ADDRESS``.

    Raises:
        AccessError: The cluster cannot be joined.
    """
    with session.ray_session():
        nodes = [n for n in ray.nodes() if n["Alive"]]  # type: ignore[no-untyped-call]
        mark = _leave(storage)
        asked = {
            _survey.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(storage, mark, list(data), _folder(node)): node
            for node in nodes
        }
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_WAIT_S)
        found, silent = [], []
        for reference, node in asked.items():
            name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            if reference not in answered:
                silent.append(f"{name} does not answer within {_WAIT_S:g} s")
                continue
            try:
                facts: dict[str, Any] = ray.get(reference)
            except ray.exceptions.RayError as error:
                silent.append(f"{name} fails: {str(error).strip().splitlines()[-1][:200]}")
                continue
            # What Ray may give out counts, not what is built in.
            facts["gpu"]["count"] = node["Resources"].get("GPU", 0.0)
            found.append(facts)
        if mark is not None:
            # What the storage does not do, each node says of its own file.
            with suppress(DyTrackError, OSError):
                files.remove(mark)
        return Gathered(found, silent, room.autoscaled())


def _leave(storage: str | None) -> str | None:
    """Write a file that the nodes must see; None where that does not work, which they will say."""
    if storage is None:
        return None
    mark = f"{storage.rstrip('/')}/.doctor-{uuid.uuid4().hex}.json"
    try:
        files.write_json(mark, {})
    except (DyTrackError, OSError):
        return None
    return mark


def _folder(node: Mapping[str, Any]) -> str | None:
    """Return where a node keeps its files: one that was given a --temp-dir, not where others do."""
    socket: str = node["RayletSocketName"]
    return str(Path(socket).parent.parent) if socket.startswith("/") else None


@ray.remote(num_cpus=0)
def _survey(
    storage: str | None, mark: str | None, data: list[str], temporary: str | None
) -> dict[str, Any]:
    return survey.survey(storage, mark, data, temporary)

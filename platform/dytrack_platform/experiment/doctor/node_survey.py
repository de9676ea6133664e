"""Have every node of a cluster say what it is: :mod:`survey`, as a task on each."""

import uuid
from collections.abc import Sequence
from typing import Any

from dytrack_platform.experiment.cluster import session  # sets Ray's environment

import ray  # isort: skip
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dytrack_platform.errors import ClusterError, DyTrackError
from dytrack_platform.experiment.doctor import survey
from dytrack_platform.storage import files

_WAIT_S = 15.0


def gather(storage: str | None, data: Sequence[str]) -> list[dict[str, Any]]:
    """Ask all nodes of the cluster of ``RAY_ADDRESS``.

    Raises:
        ClusterError: The cluster does not answer, or a node does not.
    """
    with session.ray_session():
        nodes = [n for n in ray.nodes() if n["Alive"]]  # type: ignore[no-untyped-call]
        mark = _leave(storage)
        try:
            asked = [
                _survey.options(
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                ).remote(storage, mark, list(data))
                for node in nodes
            ]
            found: list[dict[str, Any]] = ray.get(asked, timeout=_WAIT_S)
        except (ray.exceptions.RayError, TimeoutError) as error:
            reason = str(error).splitlines()[0]
            raise ClusterError(f"a node does not answer within {_WAIT_S:g} s: {reason}") from error
        finally:
            if mark is not None:
                files.remove(mark)
    return found


def _leave(storage: str | None) -> str | None:
    """Write a file that the nodes must see; None where that does not work, which they will say."""
    if storage is None:
        return None
    mark = f"{storage.rstrip('/')}/.doctor-{uuid.uuid4().hex}.json"
    try:
        files.write_json(mark, {})
    except DyTrackError:
        return None
    return mark


@ray.remote(num_cpus=0)
def _survey(storage: str | None, mark: str | None, data: list[str]) -> dict[str, Any]:
    return survey.survey(storage, mark, data)

"""What is wrong with a machine or a cluster, one line each, and how to cure it.

Facts come from :mod:`survey`, here or on every node; judging them knows no Ray, so that each fault
can be planted in a test.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from dytrack_platform.errors import DyTrackError
from dytrack_platform.experiment.cluster.probe import JoiningError
from dytrack_platform.experiment.cluster.token import token
from dytrack_platform.experiment.doctor import services, survey
from dytrack_platform.experiment.doctor.check import Check, Question
from dytrack_platform.storage import addresses

_LEAST_SHM = 2**30
_LEAST_DISK = 5 * 2**30
_GIB = 2**30
Facts = Mapping[str, Any]


def examine(question: Question) -> list[Check]:
    """Look at everything; what waits for others waits side by side.

    Args:
        question: What the work needs.

    Returns:
        The checks, in the order in which they should be cured.
    """
    remote = _is_remote(question.ray_address)
    with ThreadPoolExecutor(2) as threads:
        mlflow = threads.submit(services.judge_mlflow, question.mlflow_uri, remote=remote)
        dashboard = question.dashboard
        token = threads.submit(services.judge_token, dashboard) if dashboard else None
        checks, here, nodes, scaled = _nodes(question)
        checks += judge_nodes(here, nodes, question, scaled=scaled)
        checks += [token.result()] if token else []
        return checks + mlflow.result()


def _is_remote(address: str | None) -> bool:
    if not address:
        return False
    host = urlsplit(f"//{address.removeprefix('ray://')}").hostname or ""
    return not addresses.is_loopback(host) and host not in ("auto", "local")


def _nodes(question: Question) -> tuple[list[Check], Facts, list[dict[str, Any]], bool]:
    """Gather what this machine and every node say."""
    here = survey.survey(question.storage, None, question.data)
    if not question.ray_address:
        return [], here, [], False
    from dytrack_platform.experiment.doctor import node_survey

    try:
        found, silent, scaled = node_survey.gather(question.storage, question.data)
    except DyTrackError as error:
        what, cure = str(error), "look at its nodes with: ray status"
        if isinstance(error, JoiningError):
            what, cure = error.what, error.cure
        return [Check(check="ray", ok=False, detail=what, cure=cure)], here, [], False
    checks = [Check(check="ray", ok=True, detail=f"{len(found)} nodes at {question.ray_address}")]
    if silent:
        told = "; ".join(silent[:3]) + (f" and {len(silent) - 3} more" if silent[3:] else "")
        cure = "look at these hosts and their logs; end what hangs with: ray stop --force"
        checks = [Check(check="ray", ok=False, detail=told, cure=cure)]
    if not question.dashboard and not token() and _is_remote(question.ray_address):
        checks.append(services.judge_open(question.ray_address))
    return checks, here, found, scaled


def judge_nodes(
    here: Facts, nodes: Sequence[Facts], question: Question, *, scaled: bool = False
) -> list[Check]:
    """Judge what the machines say.

    Args:
        here: This machine, which sends the work.
        nodes: Those of the cluster, which do it; none where this machine does.
        question: What the work needs.
        scaled: More nodes may come by themselves.
    """
    facts = [here, *nodes]
    return [
        _versions(facts),
        _each(
            "two-rays",
            facts,
            lambda f: f"{f['rays']} Rays run here" if f["rays"] > 1 else "",
            "at most one Ray runs on each host",
            "give each its own ports and --temp-dir, or end one with: ray stop",
        ),
        _gpus(here, nodes, question.gpus, scaled),
        _precision(facts),
        _each(
            "shared-memory",
            facts,
            lambda f: _short(f["shm_bytes"], _LEAST_SHM, "/dev/shm"),
            f"/dev/shm has {_LEAST_SHM / _GIB:g} GiB or more",
            "mount a larger /dev/shm (docker run --shm-size, an emptyDir of medium Memory)",
        ),
        _each(
            "disk",
            facts,
            lambda f: _short(f["disk_bytes"], _LEAST_DISK, "the temporary folder"),
            f"{_LEAST_DISK / _GIB:g} GiB or more are free for Ray",
            "free some space, or set RAY_TMPDIR to another disk",
        ),
        _each(
            "host-name",
            nodes if len(nodes) > 1 else (),  # one host reaches itself by any name
            lambda f: f"its name leads to {f['loopback']}" if f["loopback"] else "",
            "host names lead to addresses that others reach",
            "mend /etc/hosts, or set GLOO_SOCKET_IFNAME to the network's interface",
        ),
        _each(
            "opencv",
            facts,
            lambda f: " and ".join(f["opencv"]) if len(f["opencv"]) > 1 else "",
            "one OpenCV package is installed",
            "keep one: pip uninstall the others, then pip install --force-reinstall it",
        ),
        *_storage(facts, question),
        _each(
            "data",
            facts if question.data else (),
            lambda f: f"{f['unreadable'][0]} is not readable" if f["unreadable"] else "",
            "data are readable",
            "put the data on a folder that all nodes share, or copy it to the same path on each",
        ),
    ]


def _each(
    name: str,
    facts: Sequence[Facts],
    fault: Callable[[Facts], str],
    fine: str,
    cure: str,
) -> Check:
    """Judge every machine alike."""
    faults = [(fact["host"], said) for fact in facts if (said := fault(fact))]
    if not faults:
        return Check(check=name, ok=True, detail=fine)
    hosts = "; ".join(f"{host}: {said}" for host, said in faults[:3])
    more = f" and {len(faults) - 3} more" if faults[3:] else ""
    return Check(check=name, ok=False, detail=hosts + more, cure=cure)


def _short(free: int | None, least: int, what: str) -> str:
    if free is None:
        return f"{what} is not there"
    return f"{what} has {free / _GIB:.1f} GiB free" if free < least else ""


def _versions(facts: Sequence[Facts]) -> Check:
    first = facts[0]
    for other in facts[1:]:
        found = {name: other["versions"].get(name, "missing") for name in first["versions"]}
        faults = [
            f"{name} is {version} on {first['host']} and {found[name]} on {other['host']}"
            for name, version in first["versions"].items()
            # The three packages may travel with the job.
            if found[name] != version and not (name == "dytrack" and found[name] == "missing")
        ]
        if faults:
            return Check(
                check="versions",
                ok=False,
                detail="; ".join(faults),
                cure="install the same versions everywhere; constraints.txt pins them",
            )
    shown = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    return Check(check="versions", ok=True, detail=shown)


def _gpus(here: Facts, nodes: Sequence[Facts], needed: int, scaled: bool) -> Check:
    for fact in (here, *nodes):
        if fact["gpu"]["there"] and not fact["gpu"]["torch"]:
            return Check(
                check="gpu",
                ok=False,
                detail=f"{fact['host']} has a GPU, and its torch ({fact['gpu']['build']}) cannot "
                "use it",
                cure="install a CUDA build of torch that fits the driver",
            )
    # This machine only sends the work where there are nodes.
    counts = [(fact["host"], fact["gpu"]["count"]) for fact in nodes or (here,)]
    total = sum(count for _, count in counts)
    shown = ", ".join(f"{count:g} on {host}" for host, count in counts if count)
    if total < needed:
        lack = f"{needed} are asked for, and there are {total:g}{shown and ': '}{shown}"
        if scaled:
            return Check(check="gpu", ok=True, detail=f"{lack}; the autoscaler may bring more")
        return Check(
            check="gpu",
            ok=False,
            detail=lack,
            cure="set train.gpu to false, ask for fewer, or add machines with GPUs",
        )
    return Check(check="gpu", ok=True, detail=shown or "none, none needed")


def _precision(facts: Sequence[Facts]) -> Check:
    """Say what processors compute fast; there is nothing to cure."""
    said = {}
    for fact in facts:
        fast = ", ".join(fact["cpu"]["fast"]) or "fp32 only: bf16 would be slower here"
        said[f"{fact['cpu']['name']}, {fact['cpu']['cores']} cores: {fast}"] = True
    return Check(check="processor", ok=True, detail="; ".join(said))


def _storage(facts: Sequence[Facts], question: Question) -> list[Check]:
    if question.storage is None:
        return []
    faults = [(fact["host"], fact["storage"]) for fact in facts if fact["storage"]]
    if not faults:
        where = f"{question.storage} is written and read on {len(facts)} machines"
        return [Check(check="storage", ok=True, detail=where)]
    host, why = faults[0]
    if "HTTP status 411" in why:
        cure = "this store wants a length: set AWS_REQUEST_CHECKSUM_CALCULATION=when_required"
    elif "not shared" in why:
        cure = "name a folder that all nodes share (NFS), or an object store's URL"
    else:
        cure = "make it writable, or name another --storage; credentials come from the environment"
    return [Check(check="storage", ok=False, detail=f"{host}: {why}", cure=cure)]


def to_json(checks: Sequence[Check]) -> str:
    """Return the checks as a JSON list."""
    return json.dumps([check.to_dict() for check in checks], indent=1)

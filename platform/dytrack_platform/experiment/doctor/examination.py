"""What is wrong with a machine or a cluster, one line each, and how to cure it.

Facts come from :mod:`survey`, here or on every node; judging them knows no Ray, so that each fault
can be planted in a test.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from dytrack_platform.errors import DyTrackError
from dytrack_platform.experiment.cluster.token import token
from dytrack_platform.experiment.doctor import survey
from dytrack_platform.experiment.runs import store

_LEAST_MLFLOW = (3, 15)
_LEAST_SHM = 2**30
_LEAST_DISK = 5 * 2**30
_WAIT_S = 5.0
_GIB = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that was looked at."""

    check: str
    ok: bool
    detail: str
    cure: str = ""
    """What to do; empty where nothing is wrong."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What to look at."""

    ray_address: str | None = None
    """A cluster, as ``RAY_ADDRESS``; None for this machine."""
    dashboard: str | None = None
    """Where jobs would be sent."""
    mlflow_uri: str = ""
    storage: str | None = None
    data: tuple[str, ...] = ()
    gpus: int = 0
    """GPUs that the work needs."""


def examine(question: Question) -> list[Check]:
    """Look at everything.

    Args:
        question: What the work needs.

    Returns:
        The checks, in the order in which they should be cured.
    """
    checks, facts = _nodes(question)
    checks += judge_nodes(facts, question)
    checks += [judge_token(question.dashboard)] if question.dashboard else []
    checks += judge_mlflow(question.mlflow_uri, remote=_is_remote(question.ray_address))
    return checks


def _is_remote(address: str | None) -> bool:
    if not address:
        return False
    host = urlsplit(f"//{address.removeprefix('ray://')}").hostname
    return host not in ("127.0.0.1", "localhost", "::1", "auto", "local")


def _nodes(question: Question) -> tuple[list[Check], list[dict[str, Any]]]:
    """Gather what every node says."""
    here = survey.survey(question.storage, None, question.data)
    if not question.ray_address:
        return [], [here]
    from dytrack_platform.experiment.doctor import node_survey

    try:
        found = node_survey.gather(question.storage, question.data)
    except DyTrackError as error:
        check = Check(
            check="ray",
            ok=False,
            detail=str(error),
            cure="start the cluster, or unset RAY_ADDRESS",
        )
        return [check], [here]
    check = Check(check="ray", ok=True, detail=f"{len(found)} nodes at {question.ray_address}")
    return [check], [here, *found]


def judge_nodes(facts: Sequence[Mapping[str, Any]], question: Question) -> list[Check]:
    """Judge what the machines say; the first of them is this one."""
    return [
        _versions(facts),
        _each(
            "two-rays",
            facts,
            lambda f: f"{f['rays']} Ray heads run here" if f["rays"] > 1 else "",
            "at most one Ray runs on each host",
            "give each its own ports and --temp-dir, or end one with: ray stop",
        ),
        _gpus(facts, question.gpus),
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
            facts if len(facts) > 1 or question.ray_address else (),
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
    facts: Sequence[Mapping[str, Any]],
    fault: "Any",  # noqa: ANN401
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


def _versions(facts: Sequence[Mapping[str, Any]]) -> Check:
    first = facts[0]
    for other in facts[1:]:
        for name, version in first["versions"].items():
            found = other["versions"].get(name, "missing")
            # The three packages may travel with the job.
            if found != version and not (name == "dytrack" and found == "missing"):
                return Check(
                    check="versions",
                    ok=False,
                    detail=f"{name} is {version} on {first['host']} and {found} on {other['host']}",
                    cure="install the same versions everywhere; constraints.txt pins them",
                )
    shown = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    return Check(check="versions", ok=True, detail=shown)


def _gpus(facts: Sequence[Mapping[str, Any]], needed: int) -> Check:
    for fact in facts:
        if fact["gpu"]["there"] and not fact["gpu"]["torch"]:
            return Check(
                check="gpu",
                ok=False,
                detail=f"{fact['host']} has a GPU, and its torch ({fact['gpu']['build']}) cannot "
                "use it",
                cure="install a CUDA build of torch that fits the driver",
            )
    usable = [fact["host"] for fact in facts if fact["gpu"]["torch"]]
    if needed and not usable:
        return Check(
            check="gpu",
            ok=False,
            detail=f"{needed} are asked for, and no machine has one",
            cure="set train.gpu to false, or add a machine with a GPU",
        )
    return Check(check="gpu", ok=True, detail=", ".join(usable) if usable else "none, none needed")


def _precision(facts: Sequence[Mapping[str, Any]]) -> Check:
    """Say what processors compute fast; there is nothing to cure."""
    said = {}
    for fact in facts:
        fast = ", ".join(fact["cpu"]["fast"]) or "fp32 only: bf16 would be slower here"
        said[f"{fact['cpu']['name']}, {fact['cpu']['cores']} cores: {fast}"] = True
    return Check(check="processor", ok=True, detail="; ".join(said))


def _storage(facts: Sequence[Mapping[str, Any]], question: Question) -> list[Check]:
    if question.storage is None:
        return []
    faults = [(fact["host"], fact["storage"]) for fact in facts if fact["storage"]]
    if not faults:
        where = f"{question.storage} is written and read on {len(facts)} machines"
        return [Check(check="storage", ok=True, detail=where)]
    host, why = faults[0]
    if "411" in why:
        cure = "this store wants a length: set AWS_REQUEST_CHECKSUM_CALCULATION=when_required"
    elif "not shared" in why:
        cure = "name a folder that all nodes share (NFS), or an object store's URL"
    else:
        cure = "make it writable, or name another --storage; credentials come from the environment"
    return [Check(check="storage", ok=False, detail=f"{host}: {why}", cure=cure)]


def judge_token(dashboard: str) -> Check:
    """Ask a dashboard with the token that this machine has, if any."""
    request = urllib.request.Request(f"{dashboard.rstrip('/')}/api/version")
    if known := token():
        request.add_header("Authorization", f"Bearer {known}")
    has = "a token" if known else "no token"
    try:
        with urllib.request.urlopen(request, timeout=_WAIT_S):
            pass
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (401, 403):
            return Check(
                check="token",
                ok=False,
                detail=f"{dashboard} refuses this machine, which has {has}",
                cure="put the cluster's token into ~/.ray/auth_token, or set RAY_AUTH_TOKEN",
            )
        return Check(check="token", ok=True, detail=f"{dashboard} answers {error.code}")
    except (OSError, ValueError) as error:
        return Check(
            check="token",
            ok=False,
            detail=f"{dashboard} does not answer ({getattr(error, 'reason', error)})",
            cure="start the dashboard, or name another --dashboard",
        )
    return Check(check="token", ok=True, detail=f"{dashboard} takes this machine, with {has}")


def judge_mlflow(uri: str, *, remote: bool) -> list[Check]:
    """Judge the store: reachable, of a version without known holes, and not open to everybody."""
    if uri.startswith("sqlite:") and remote:
        return [
            Check(
                check="mlflow",
                ok=False,
                detail=f"{uri} is a file of one machine, and Ray runs on others",
                cure="run a server and set MLFLOW_TRACKING_URI to its address (dytrack mlflow up)",
            )
        ]
    try:
        store.check(uri)
    except DyTrackError as error:
        return [
            Check(
                check="mlflow",
                ok=False,
                detail=str(error),
                cure="start the store, or set MLFLOW_TRACKING_URI to another",
            )
        ]
    checks = [Check(check="mlflow", ok=True, detail=f"{store.shown(uri)} answers")]
    own = survey.versions()["mlflow"]
    checks.append(_mlflow_version("mlflow-version", f"this machine has {own}", own))
    if uri.startswith(("http://", "https://")):
        server = _answer(f"{uri.rstrip('/')}/version")
        checks.append(_mlflow_version("mlflow-server", f"the server has {server}", server))
        checks.append(_authenticated(uri))
    return checks


def _mlflow_version(name: str, detail: str, version: str) -> Check:
    parts = version.split(".")
    known = len(parts) > 1 and all(part.isdigit() for part in parts[:2])
    if known and (int(parts[0]), int(parts[1])) >= _LEAST_MLFLOW:
        return Check(check=name, ok=True, detail=detail)
    least = ".".join(map(str, _LEAST_MLFLOW))
    return Check(
        check=name,
        ok=False,
        detail=f"{detail}; {least} closes known holes",
        cure=f"install mlflow>={least}, then mlflow db upgrade",
    )


def _authenticated(uri: str) -> Check:
    """Ask without a name: a server that answers is open to whoever reaches it."""
    code, _ = _ask(f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/get?experiment_id=0")
    if code in (401, 403):
        return Check(check="mlflow-open", ok=True, detail="the server asks who is there")
    if store.is_loopback(urlsplit(uri).hostname or ""):
        return Check(check="mlflow-open", ok=True, detail="open, to this machine only")
    return Check(
        check="mlflow-open",
        ok=False,
        detail=f"{store.shown(uri)} answers everybody who reaches it",
        cure="start it with --app-name basic-auth behind TLS, or let it listen on loopback only",
    )


def _ask(url: str) -> tuple[int, str]:
    """Return the status and the body of an answer; 0 where there is none."""
    try:
        with urllib.request.urlopen(url, timeout=_WAIT_S) as answer:
            return int(answer.status), answer.read(4096).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        error.close()
        return error.code, ""
    except (OSError, ValueError):
        return 0, ""


def _answer(url: str) -> str:
    return _ask(url)[1].strip() or "unknown"


def to_json(checks: Sequence[Check]) -> str:
    """Return the checks as a JSON list."""
    return json.dumps([check.to_dict() for check in checks], indent=1)

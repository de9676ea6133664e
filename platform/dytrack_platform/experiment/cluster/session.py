"""Reach a Ray cluster, or start one on this machine for as long as a command needs it."""

import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from dytrack_platform.experiment.cluster.token import token

# Settings that Ray reads when it is imported or when its processes start.
# The health check interval paces Train's controller: at its default of 2 s every report waits.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    # Ctrl-C is ours: Tune would end quietly, and its caller would not know why.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
ANNOUNCES = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
"""Whether a process of Ray Train asks, again and again, which nodes will be taken away."""


# "ray start" asks for a token wherever one lies in the home folder, but a client sends it only
# when told to.
if token():
    os.environ.setdefault("RAY_AUTH_MODE", "token")

import ray  # noqa: E402  (the settings above must come first)

from dytrack_platform.errors import ClusterError  # noqa: E402
from dytrack_platform.experiment.cluster import probe  # noqa: E402

_ANSWER_S = 10.0
_LONGEST_TEMPORARY = 36
"""Characters: Linux allows 107 for a socket, and Ray adds
``/ray/session_2026-11-27_12-00-00_000000_1234567/sockets/plasma_store.1``."""
_REFUSALS = (ray.exceptions.RayError, ConnectionError, TimeoutError)
_LOG = logging.getLogger(__name__)
_NOT_UP = "Starting Ray client server failed"
# Ray warns at every start that its token authentication is on, which is what we want.
logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)


def packages() -> list[str]:
    """Name the three package folders, for ``py_modules`` on workers that lack the install."""
    import dytrack_model
    import dytrack_platform

    folders = [Path(p.__file__ or "").parent for p in (dytrack_model, dytrack_platform)]
    pipelines = folders[1].parent.parent / "pipelines" / "dytrack_pipelines"
    if not pipelines.is_dir():  # installed as a wheel: the three lie side by side
        pipelines = folders[1].parent / "dytrack_pipelines"
    return [str(folder) for folder in (*folders, pipelines)]


def joined() -> bool:
    """Say whether the running Ray is a cluster that was there before, not one started here."""
    return bool(os.environ.get("RAY_ADDRESS"))


def resources() -> dict[str, float]:
    """Return what the running Ray has: CPU, GPU, memory."""
    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found


def require_answer(place: str, named: str, port: str = "") -> None:
    """Refuse an address where nobody listens: Ray itself would try for minutes.

    Args:
        place: ``host:port``.
        named: How the user gave it, for the message.
        port: Where ``place`` has none.

    Raises:
        JoiningError: Nobody answers.
    """
    host, colon, given = place.rpartition(":")
    if not colon or not given.isdecimal():
        if not port:  # auto, local: Ray finds those on this machine
            return
        host, given = place, port
    try:
        with socket.create_connection((host.strip("[]"), int(given)), timeout=_ANSWER_S):
            pass
    except (OSError, OverflowError) as error:
        raise probe.JoiningError(
            f"nobody answers at {named} ({error})", "start the cluster, or name another address"
        ) from error


def _require_short_paths() -> None:
    """Refuse a temporary folder whose name is too long for the sockets that Ray makes below it.

    Raises:
        ClusterError: It is too long, or cannot be written.
    """
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(os.fsencode(folder)) > _LONGEST_TEMPORARY:
        raise ClusterError(
            f"Ray cannot make its sockets below {folder}: the name has {len(folder)} characters, "
            f"at most {_LONGEST_TEMPORARY} are possible; set RAY_TMPDIR to a shorter folder"
        )
    if not os.access(folder, os.W_OK):
        raise ClusterError(
            f"Ray cannot write to {folder}; set RAY_TMPDIR to a folder that it can write to"
        )


@contextmanager
def _holding_interrupts() -> Iterator[None]:
    """Hold the first Ctrl-C back until Ray has started, or has stopped; a second one is not held.

    A driver that is cut off between the start of Ray's processes and its own connection ends
    without a word as soon as its raylet goes, or with a segmentation fault.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    held = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal held
        if held:
            before(number, frame)
        held = True

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def ray_session(cpus: int | None = None, *, dashboard: bool = False) -> Iterator[None]:
    """Use the running Ray, the cluster of ``RAY_ADDRESS``, or a Ray started here and now.

    Only a Ray that this call started is stopped at the end.

    Args:
        cpus: Logical CPUs of a Ray that is started here; all of the machine's by default.
        dashboard: Start the dashboard too; nested Tune trials leak their CPU without it.

    Raises:
        AccessError: The cluster does not answer, refuses the token, or has another Ray.
        ClusterError: Ray does not start.
    """
    if ray.is_initialized():
        yield
        return
    # A Ray of this command's own loses no node before it ends, and needs nobody who asks for it.
    unasked = not os.environ.get("RAY_ADDRESS") and ANNOUNCES not in os.environ
    if unasked:
        os.environ[ANNOUNCES] = "0"
    try:
        with _holding_interrupts():
            _start(cpus, dashboard)
        yield
    finally:
        with _holding_interrupts():
            ray.shutdown()
        if unasked:
            del os.environ[ANNOUNCES]


def _join(address: str, runtime_env: dict[str, list[str]] | None) -> None:
    for last in (False, True):
        try:
            ray.init(
                address=address,
                logging_level=logging.WARNING,
                log_to_driver=False,
                runtime_env=runtime_env,
            )
            return
        except (*_REFUSALS, RuntimeError) as error:
            # By ray:// a head starts a process for each driver; where it is busy that one may not
            # come up, and the next one does.
            if last or _NOT_UP not in str(error):
                raise
            _LOG.warning("%s did not start a process for this driver; asking once more", address)


def _start(cpus: int | None, dashboard: bool) -> None:
    """Join the cluster of ``RAY_ADDRESS``, or start a Ray on this machine.

    Raises:
        AccessError: The cluster does not answer, refuses the token, or has another Ray.
        ClusterError: Ray does not start.
    """
    address = os.environ.get("RAY_ADDRESS")
    # A job's driver inherits the packages that were shipped with the job.
    in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    try:
        if address:
            place = address.removeprefix("ray://")
            require_answer(place, f"RAY_ADDRESS={address}")
            if ":" in place:  # auto, local: Ray finds those on this machine
                probe.require_head(place, f"RAY_ADDRESS={address}")
                if place == address:  # ray:// has another process join, on the head
                    probe.require_node(f"RAY_ADDRESS={address}")
            _join(address, None if in_job else {"py_modules": packages()})
        else:
            _require_short_paths()
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=dashboard,
                logging_level=logging.WARNING,
                log_to_driver=False,
                _node_ip_address="127.0.0.1",
            )
    except (*_REFUSALS, RuntimeError, ValueError) as error:
        if not address:
            raise ClusterError(
                f"a Ray on this machine does not start: {str(error)[:300]}"
            ) from error
        if "mismatch" in str(error):
            raise probe.mismatch(f"RAY_ADDRESS={address}", str(error)) from error
        raise probe.JoiningError(
            f"the cluster at RAY_ADDRESS={address} does not take this driver: "
            f"{' '.join(str(error).split())[:300]}",
            "look at its nodes with: ray status",
        ) from error

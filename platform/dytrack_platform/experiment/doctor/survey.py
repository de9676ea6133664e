"""What one machine says of itself: gathered here, or by a task on every node of a cluster."""

import importlib.metadata
import os
import platform
import shutil
import socket
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dytrack_platform.evaluation.peers.contest import processor

_PACKAGES = ("dytrack", "ray", "torch", "mlflow", "optuna", "pyarrow")
_FLAGS = {
    "avx512_bf16": "bf16 (AVX-512)",
    "amx_bf16": "bf16 (AMX)",
    "avx512_vnni": "int8 (VNNI)",
    "amx_int8": "int8 (AMX)",
}
_OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


def survey(
    storage: str | None = None,
    mark: str | None = None,
    data: Sequence[str] = (),
    temporary: str | None = None,
) -> dict[str, Any]:
    """Look at this machine.

    Args:
        storage: A folder or URL to write to and read from.
        mark: A file there that another node wrote.
        data: Paths that must be readable.
        temporary: Where the Ray that runs here keeps its files; where one would by default.

    Returns:
        Plain JSON types.
    """
    return {
        "host": socket.gethostname(),
        "versions": versions(),
        "loopback": resolves_to_loopback(),
        "shm_bytes": _free("/dev/shm"),
        "disk_bytes": _free(temporary or os.environ.get("RAY_TMPDIR") or "/tmp"),
        "opencv": [name for name in _OPENCV if _version(name)],
        "rays": rays(),
        "cpu": cpu(),
        "gpu": gpu(),
        "storage": None if storage is None else try_storage(storage, mark),
        "unreadable": [path for path in data if "://" not in path and not os.access(path, os.R_OK)],
    }


def versions() -> dict[str, str]:
    """Return the versions that have to agree between nodes."""
    found = {name: _version(name) or "missing" for name in _PACKAGES}
    # Two builds of one release (CPU and CUDA) go together.
    return {"python": platform.python_version(), **{k: v.split("+")[0] for k, v in found.items()}}


def resolves_to_loopback() -> str | None:
    """Return the address that this host's name leads to, if it is loopback: gloo would take it.

    Unless it is told an interface.
    """
    if os.environ.get("GLOO_SOCKET_IFNAME"):
        return None
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        return "nothing"
    return address if address.startswith("127.") else None


def rays() -> int:
    """Count the Rays that run on this machine: heads, or nodes that joined one."""
    import psutil

    names = [process.info["name"] for process in psutil.process_iter(["name"])]
    return max(names.count("gcs_server"), names.count("raylet"))


def cpu() -> dict[str, Any]:
    """Name the processor, and what of lower precision it computes by itself."""
    lines: list[str] = []
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set[str]())
    return {
        "name": processor(),
        "cores": os.cpu_count() or 1,
        "fast": [meaning for flag, meaning in _FLAGS.items() if flag in flags],
    }


def gpu() -> dict[str, Any]:
    """Say whether there is a GPU, and whether torch can use it."""
    if not Path("/dev/nvidia0").exists():  # torch takes seconds to import
        build = _version("torch") or "missing"
        return {"there": False, "torch": False, "build": build, "count": 0}
    import torch

    build = str(torch.version.cuda or "CPU")
    usable = bool(torch.cuda.is_available())
    count = torch.cuda.device_count() if usable else 0
    return {"there": True, "torch": usable, "build": build, "count": count}


def try_storage(storage: str, mark: str | None) -> str:
    """Write a file, read it back and remove it; look for another node's.

    Returns:
        Why it does not work; empty where it does.
    """
    from dytrack_platform.errors import DyTrackError
    from dytrack_platform.storage import files

    own = f"{storage.rstrip('/')}/.doctor-{uuid.uuid4().hex}.json"
    try:
        files.write_json(own, {"word": own})
        read = files.read_json(own)
        files.remove(own)
        if read != {"word": own}:
            return "what was written is not read back"
        if mark is not None and files.read_json(mark) is None:
            return "a file that another node wrote is not there: it is not shared"
    except (DyTrackError, OSError) as error:
        return str(error)
    return ""


def _free(folder: str) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None

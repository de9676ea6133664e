"""Where a run came from: code, environment, machine. Imports torch only where it is asked of."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import psutil

import dytrack_platform
from dytrack_platform.evaluation.peers.contest import processor


def code() -> dict[str, str]:
    """Return MLflow tags of the git commit that this package lies in; none outside of git."""
    folder = Path(dytrack_platform.__file__).parent
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {"dytrack.version": metadata.version("dytrack")}
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {
        "dytrack.version": metadata.version("dytrack"),
        "mlflow.source.git.commit": commit,
        "git.changed": "no" if not changed else "yes",
    }


def environment() -> str:
    """List interpreter, machine and every installed distribution with its version."""
    import torch

    lines = [
        f"python {platform.python_version()}  {platform.platform()}",
        f"cpus {os.cpu_count()}  memory {psutil.virtual_memory().total / 2**30:.1f} GiB",
        f"torch {torch.__version__}  cuda {torch.version.cuda or 'none'}  "
        f"gpus {torch.cuda.device_count()}",
    ]
    found = {d.metadata["Name"]: d.version for d in metadata.distributions()}
    return (
        "\n".join([*lines, "", *(f"{k}=={found[k]}" for k in sorted(found, key=str.lower))]) + "\n"
    )


def machine() -> str:
    """Name this machine as far as its times depend on it."""
    return f"{processor()}, {os.cpu_count()} cores, {platform.node()}"


def load() -> dict[str, float]:
    """Return this machine's load as MLflow's system metrics."""
    memory = psutil.virtual_memory()
    return {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_percentage": memory.percent,
        "system/system_memory_usage_megabytes": (memory.total - memory.available) / 1e6,
    }


def process_load() -> dict[str, float]:
    """Return this process's memory, and its GPU's where it has one, in megabytes."""
    import torch

    found = {"memory_megabytes": psutil.Process().memory_info().rss / 1e6}
    if torch.cuda.is_available():
        found["gpu_memory_megabytes"] = torch.cuda.memory_allocated() / 1e6
        found["gpu_memory_peak_megabytes"] = torch.cuda.max_memory_allocated() / 1e6
    return found


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None

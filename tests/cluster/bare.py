"""A Python that has dytrack's dependencies and not dytrack: what a node of a cluster has."""

import atexit
import functools
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path


@functools.cache
def bare_environment():
    """Make it, once; returns the folder of its ``python`` and ``ray``.

    The tests' own site-packages are a plain entry of its path, where the file that leads to an
    editable installation is not read.
    """
    folder = Path(tempfile.mkdtemp(prefix="dytbare", dir="/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (own / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    programs = folder / "bin"
    ray = programs / "ray"
    ray.write_text(f"#!{programs / 'python'}\nfrom ray.scripts.scripts import main\nmain()\n")
    ray.chmod(0o755)
    tried = subprocess.run(
        [programs / "python", "-P", "-c", "import ray, torch, mlflow, dytrack_model"],
        env=without_sources(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "No module named 'dytrack_model'" in tried.stderr, tried.stderr
    return programs


def without_sources(environment):
    """Return variables without the path on which a developer's shell may lead to dytrack itself."""
    return {name: value for name, value in environment.items() if name != "PYTHONPATH"}

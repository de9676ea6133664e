"""The oldest versions that pyproject.toml admits, and the pinned ones, import and track.

Each needs an environment of its own, gigabytes of torch among it; where pip cannot make one the
test skips with what pip said.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

pytestmark = pytest.mark.third_party

ROOT = Path(__file__).resolve().parents[2]
MODEL = ("torch", "timm", "numpy", "opencv-python-headless", "safetensors")
"""What dytrack_model imports."""
SCRIPT = """
import numpy as np
from dytrack_model import Tracker
frames = [np.random.default_rng(n).integers(0, 256, (120, 160, 3), np.uint8) for n in range(4)]
for point in ("full", "0,0"):
    tracker = Tracker.load("tests/golden/tracker", point)
    found = list(tracker.track(frames, (40, 30, 50, 40)))
    assert len(found) == 3 and all(np.isfinite(one.box_xywh).all() for one in found)
"""


def versions(kind):
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    lowest = {
        r.name: next(s.version for s in r.specifier if s.operator == ">=")
        for r in map(Requirement, declared)
        if r.name in MODEL
    }
    if kind == "lowest":
        return [f"{name}=={version}" for name, version in lowest.items()]
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in pins if line.partition("==")[0] in MODEL]


@pytest.mark.parametrize("kind", ["lowest", "pinned"])
def test_the_model_imports_and_tracks(kind, tmp_path):
    wanted = versions(kind)
    assert len(wanted) == len(MODEL)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    made = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *wanted],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"pip cannot make this environment: {made.stderr.strip().splitlines()[-1]}")
    done = subprocess.run(
        [python, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

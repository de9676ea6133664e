"""The tutorial's commands are run, in order, in an empty directory."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/tutorial.md").read_text()


def _lines():
    blocks = re.findall(r"^```\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    joined = re.sub(r"\\\n *", "", "".join(blocks))
    return [line for line in joined.splitlines() if line.startswith("dytrack ")]


def _run(line, folder):
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    path = os.pathsep.join(map(str, (ROOT, ROOT / "platform", ROOT / "pipelines")))
    environment["PYTHONPATH"] = os.pathsep.join((path, os.environ.get("PYTHONPATH", "")))
    return subprocess.run(
        [sys.executable, "-m", "dytrack_pipelines.cli", *shlex.split(line)[1:]],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip


@pytest.mark.ray
def test_every_command_of_the_tutorial_runs(tmp_path):
    lines = _lines()
    assert len(lines) >= 9
    for line in lines:
        done = _run(line, tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    truth = (tmp_path / "made/test/test_000002/groundtruth.txt").read_text().splitlines()[0]
    assert [float(value) for value in truth.split(",")] == [138, 91, 68, 50], "as the page says"
    for made in ("out.mp4", "boxes.csv", "results/report.html", "mine.yaml", "runs/mine/tracker"):
        assert (tmp_path / made).exists(), made

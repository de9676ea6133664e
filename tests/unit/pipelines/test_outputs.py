"""No byte of a file that dytrack did not write changes in any command."""

import os

import cv2
import numpy as np
import pytest
import torch

from dytrack_model import checkpoint
from dytrack_model.config import variant
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import OperatingPoint

BOXES = "10,10,20,20\n" * 12


@pytest.fixture
def house(tmp_path, monkeypatch, made):
    """A folder of inputs for every command, and of things that are somebody's."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    points = [OperatingPoint(name="balanced", thresholds=(0.5, 0.5))]
    checkpoint.save(tmp_path / "tracker", DyTrackNetwork(variant("test")), points)
    writer = cv2.VideoWriter("in.avi", cv2.VideoWriter.fourcc(*"MJPG"), 25, (96, 64))
    for _ in range(12):
        writer.write(np.zeros((64, 96, 3), np.uint8))
    writer.release()
    # Of one frame: a comparison that gets past its outputs ends there.
    writer = cv2.VideoWriter("one.avi", cv2.VideoWriter.fourcc(*"MJPG"), 25, (96, 64))
    writer.write(np.zeros((64, 96, 3), np.uint8))
    writer.release()
    for name in ("results/one", "results/two", "truth"):
        (tmp_path / name).mkdir(parents=True)
        for sequence in ("a", "b"):
            (tmp_path / name / f"{sequence}.txt").write_text(BOXES)
    (tmp_path / "recipe.yaml").write_text("name: mine\n")
    (tmp_path / "thesis.txt").write_text("years of work")
    full = tmp_path / "full"
    full.mkdir()
    # Somebody else's files under every name that a command writes.
    for name in (
        *("summary.json", "report.html", "pareto.png", "rejects.jsonl", "evaluation.log"),
        *("model.safetensors", "tracker.json", "stages.json", "stage0.onnx", "thesis.txt"),
        *("versus.html", "versus.png", "list.txt", "synth.json", "mlflow.db", "manifest.json"),
        *("o.mp4", "o.csv", "o.json", "o.html"),
    ):
        (full / name).write_bytes(f"somebody's {name}".encode())
    (full / "results").mkdir()
    (full / "results" / "a.txt").write_text("mine")
    (tmp_path / "link").symlink_to("full")
    (tmp_path / "linked.csv").symlink_to("thesis.txt")
    os.link(tmp_path / "thesis.txt", tmp_path / "hard.json")
    return tmp_path


def _contents(folder):
    return {
        path: path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


SCORE = ["--protocol", "pysot-otb", "--annotations", "truth"]
DATA = ["--dataset", "video", "--root", "."]
COMMANDS = {
    "track --out": ["track", "in.avi", "--init", "10,10,20,20", "--model", "tracker", "--out"],
    "track --csv": ["track", "in.avi", "--init", "10,10,20,20", "--model", "tracker", "--csv"],
    "score --json-file": ["score", "--results", "results", *SCORE, "--json-file"],
    "compare --out": ["compare", "results/one", "results/two", *SCORE, "--out"],
    "preview --out": ["data", "preview", "recipe.yaml", "--out"],
    "synth --out": ["data", "synth", "--sequences", "1", "--set", "frames=[4,4]", "--out"],
    "export --out": ["export", "tracker", "--out"],
    "import --out": ["import-ostrack", "tracker/model.safetensors", "--out"],
    "shrink --out": ["shrink", "tracker", "--out"],
    "calibrate --out": [
        *("calibrate", "tracker", *DATA, "--budget-gmacs", "1", "--out"),
    ],
    "evaluate --out": ["evaluate", *DATA, "--model", "tracker", "--out"],
    "versus --out": [
        *("versus", "--model", "tracker", "--video", "one.avi", "--init", "10,10,20,20"),
        *("--peer", "csrt", "--out"),
    ],
    "versus --out-video": [
        *("versus", "--model", "tracker", "--video", "one.avi", "--init", "10,10,20,20"),
        *("--peer", "csrt", "--out-video"),
    ],
    "versus --json-file": [
        *("versus", "--model", "tracker", "--video", "one.avi", "--init", "10,10,20,20"),
        *("--peer", "csrt", "--json-file"),
    ],
}
PLACES = (
    ".",
    "in.avi",
    "recipe.yaml",
    "thesis.txt",
    "linked.csv",
    "hard.json",
    "full",
    "link",
    "full/o.mp4",
    "full/o.csv",
    "full/o.json",
    "full/o.html",
    "tracker",
    "tracker/model.safetensors",
    "tracker/tracker.json",
    "results/one/a.txt",
    "thesis.txt/below",
    "no/such/folder/thesis.txt/../../../../thesis.txt",
)


LONG = ("calibrate --out", "preview --out", "versus --out-video", "export --out")
MARKED = [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else []) for name in COMMANDS]


@pytest.mark.parametrize("command", MARKED)
def test_whatever_an_output_names_nothing_else_changes(dytrack, house, command):
    before = _contents(house)
    for place in PLACES:
        # Tracking here would only cost time: what counts is what happens before.
        done = dytrack(*COMMANDS[command], place)
        assert "Traceback" not in done.stderr, (place, done.stderr)
        after = _contents(house)
        changed = [str(path) for path, content in before.items() if after.get(path) != content]
        assert not changed, (place, changed, done.stdout, done.stderr)
        # A command may have written a tracker or an export of its own into the folder.
        for path in set(after) - set(before):
            path.unlink()

"""Other projects' toolkits run our tracker, and their numbers equal ours.

Needs the extra ``third-party``: ``pip install -e '.[third-party]'``, then
``pytest -m third_party tests/third_party``.
"""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dytrack_model.checkpoint import save
from dytrack_model.config import VARIANTS
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import OperatingPoint
from dytrack_platform.evaluation.scoring.annotations import read_annotations
from dytrack_platform.evaluation.scoring.profiles import profile
from dytrack_platform.evaluation.scoring.scoreboard import find_trackers, score_results
from dytrack_platform.evaluation.vot.files import read_sequences
from dytrack_platform.evaluation.vot.protocols import VOT_PROFILES, score_vot

pytestmark = [
    pytest.mark.third_party,
    # The toolkits are older than the libraries they run on here.
    pytest.mark.filterwarnings("ignore"),
]

FRAMES = 30


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    points = [OperatingPoint(name="balanced", thresholds=(0.5, 0.5))]
    folder = tmp_path_factory.mktemp("model") / "tracker"
    return save(folder, DyTrackNetwork(VARIANTS["test"]), points)


def draw(folder: Path, name: str, seed: int) -> np.ndarray:
    """Write a bright square over noise, and give its boxes."""
    rng = np.random.default_rng(seed)
    boxes = np.column_stack(
        [40 + 2.0 * np.arange(FRAMES), 50 + np.arange(FRAMES), [24.0] * FRAMES, [20.0] * FRAMES]
    )
    folder.mkdir(parents=True)
    for k, (x, y, w, h) in enumerate(boxes.astype(int)):
        image = rng.integers(0, 90, (160, 200, 3), dtype=np.uint8)
        image[y : y + h, x : x + w] = (40, 180, 230)
        cv2.imwrite(str(folder / name.format(k + 1)), image)
    return boxes


def lines(boxes: np.ndarray) -> str:
    return "".join(",".join(f"{v:.4f}" for v in box) + "\n" for box in boxes)


def test_got10ks_toolkit_runs_our_tracker_and_agrees_on_the_scores(tmp_path, model, monkeypatch):
    pytest.importorskip("got10k", reason="the extra third-party is not installed")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    from got10k.experiments import ExperimentGOT10k

    from dytrack_platform.interop.got10k import GOT10kTracker

    names = [f"GOT-10k_Val_{k:06d}" for k in (1, 2)]
    for seed, name in enumerate(names):
        folder = tmp_path / "GOT-10k" / "val" / name
        boxes = draw(folder, "{:08d}.jpg", seed)
        (folder / "groundtruth.txt").write_text(lines(boxes))
        for flag, value in (("absence", 0), ("cover", 8), ("cut_by_image", 0)):
            (folder / f"{flag}.label").write_text(f"{value}\n" * FRAMES)
        about = "[METAINFO]\nobject_class: square\nresolution: (200, 160)\n"
        (folder / "meta_info.ini").write_text(about)
    (tmp_path / "GOT-10k" / "val" / "list.txt").write_text("\n".join(names) + "\n")
    places = {"result_dir": str(tmp_path / "results"), "report_dir": str(tmp_path / "reports")}
    experiment = ExperimentGOT10k(str(tmp_path / "GOT-10k"), subset="val", **places)
    tracker = GOT10kTracker(str(model), point="balanced")
    experiment.run(tracker)
    official = experiment.report([tracker.name])[tracker.name]["overall"]

    results = find_trackers(tmp_path / "results" / "GOT-10k")
    annotations = read_annotations(tmp_path / "GOT-10k" / "val")
    ours = score_results(profile("got10k"), annotations, results).trackers["DyTrack-balanced"]
    assert ours.ao == pytest.approx(official["ao"], abs=1e-9)
    assert ours.sr50 == pytest.approx(official["sr"], abs=1e-9)
    assert ours.fps == pytest.approx(official["speed_fps"], abs=1e-6)


def vot_workspace(folder: Path, model: Path) -> None:
    for seed, name in enumerate(("one", "two")):
        sequence = folder / "sequences" / name
        boxes = draw(sequence / "color", "{:08d}.jpg", seed)
        (sequence / "groundtruth.txt").write_text(lines(boxes))
        about = f"name={name}\nfps=30\nformat=default\nchannels.color=color/%08d.jpg\n"
        about += f"length={FRAMES}\nwidth=200\nheight=160\n"
        (sequence / "sequence").write_text(about)
        anchors = [1] + [0] * (FRAMES - 2) + [-1]
        (sequence / "anchor.value").write_text("".join(f"{a}\n" for a in anchors))
    (folder / "sequences" / "list.txt").write_text("one\ntwo\n")
    start = folder / "start.py"
    start.write_text(
        "import typer\nfrom dytrack_pipelines.commands.trax import trax\n"
        "app = typer.Typer()\napp.command()(trax)\napp()\n"
    )
    command = f"{sys.executable} {start} --model {model} --point balanced"
    (folder / "trackers.ini").write_text(
        f"[DyTrack]\nlabel = DyTrack\nprotocol = trax\ncommand = {command}\n"
    )
    (folder / "stack.yaml").write_text(
        textwrap.dedent("""\
            title: check
            dataset: none
            experiments:
              baseline:
                type: supervised
                repetitions: 1
                skip_initialize: 5
                analyses:
                  - type: supervised_average_ar
                  - {type: supervised_eao_score, low: 3, high: 12}
              multistart:
                type: multistart
                analyses:
                  - {type: multistart_eao_score, low: 3, high: 12}
                  - type: multistart_average_ar
              longterm:
                type: unsupervised
                repetitions: 1
                analyses:
                  - type: average_tpr
            """)
    )


def test_vots_toolkit_runs_our_tracker_and_agrees_on_the_scores(tmp_path, model):
    pytest.importorskip("trax", reason="the extra third-party is not installed")
    pytest.importorskip("vot", reason="the extra third-party is not installed")
    vot_workspace(tmp_path, model)
    vot = str(Path(sys.executable).with_name("vot"))

    def run(*words):
        environment = {**os.environ, "MPLBACKEND": "Agg"}
        done = subprocess.run(
            [vot, *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            env=environment,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    run("initialize", "--nodownload", "--workspace", str(tmp_path), str(tmp_path / "stack.yaml"))
    run("evaluate", "--workspace", str(tmp_path), "DyTrack")
    words = ("--format", "json", "--name", "check", "DyTrack")
    run("analysis", "--workspace", str(tmp_path), *words)
    report = next((tmp_path / "analysis").rglob("*.json"))
    official = json.loads(report.read_text())["results"]

    sequences = read_sequences(tmp_path)
    tracker = tmp_path / "results" / "DyTrack"

    def scored(name):
        return score_vot(VOT_PROFILES[name], sequences, tracker, eao_range=(3, 12))

    (ar,), (eao,) = official["baseline"]["results"]
    ours = scored("vot-supervised")
    assert [ours["accuracy"], ours["robustness"]] == pytest.approx(ar[:2], abs=1e-6)
    assert ours["eao"] == pytest.approx(eao[0], abs=1e-6)
    (eao,), (ar,) = official["multistart"]["results"]
    ours = scored("vot-multistart")
    assert [ours["accuracy"], ours["robustness"]] == pytest.approx(ar[:2], abs=1e-6)
    assert ours["eao"] == pytest.approx(eao[0], abs=1e-6)
    ((prf,),) = official["longterm"]["results"]
    ours = scored("vot-longterm")
    assert [ours["precision"], ours["recall"], ours["f"]] == pytest.approx(prf, abs=1e-6)

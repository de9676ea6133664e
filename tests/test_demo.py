"""``dytrack demo`` from the first made frame to the served champion: minutes, a tier of its own."""

import csv
import json
import os
import subprocess
import sys

import cv2
import pytest

pytestmark = pytest.mark.demo


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Run the demonstration once; returns its folder and what it said."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "RAY_ADD"))}
    done = subprocess.run(
        [sys.executable, "-m", "dytrack_pipelines.cli", "demo", "--folder", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=3600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder, done.stdout


@pytest.fixture(scope="module")
def summary(demo):
    return json.loads((demo[0] / "evaluation/summary.json").read_text())


def test_its_conclusion_has_the_figures_of_the_summary(demo, summary):
    conclusion = demo[1].partition("== 9/9")[2]
    rows = [*summary["points"], *summary["baselines"]]
    assert len(rows) >= 5
    for row in rows:
        line = next(line for line in conclusion.splitlines() if f"│ {row['name']} " in line)
        assert f"{row['success_auc']:.3f}" in line
    assert "reference, balanced" in conclusion
    for place in ("report", "Pareto front", "of trials", "video"):
        path = next(line for line in conclusion.splitlines() if line.startswith(place))
        assert (demo[0].parent / path[len(place) :].split()[0]).is_file()


def test_it_learnt_something(summary):
    """What the command's own page says to expect."""
    scores = {
        row["name"]: row["success_auc"] for row in (*summary["points"], *summary["baselines"])
    }
    deepest = max(row["success_auc"] for row in summary["points"])
    assert deepest > 0.55
    assert deepest > scores["static"]
    assert deepest > scores["cv2-MIL"]


def test_the_tracked_video_and_its_table_are_there(demo):
    folder = demo[0]
    with (folder / "boxes.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("tracked.mp4", "tracked-reference.mp4"):
        capture = cv2.VideoCapture(str(folder / name))
        assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == len(rows) > 10
        capture.release()


def test_the_champion_loads_as_a_server_would_load_it(demo, monkeypatch):
    from dytrack_platform.experiment.registry import registry
    from dytrack_platform.serving.batching import open_served

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{(demo[0] / 'mlflow.db').absolute()}")
    saved = registry.load("models:/dytrack@champion")
    assert {point.name for point in saved.points} >= {"fast", "balanced", "accurate"}
    served = open_served(saved, rounds=1)
    assert served.engine.exit_count == len(saved.network.config.exits)

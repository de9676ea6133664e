"""Evaluation over workers: complete, resumable, and the same whatever dies."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import ray
import torch

from dytrack_model.checkpoint import save
from dytrack_model.config import VARIANTS
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import OperatingPoint
from dytrack_platform.datasets import readers
from dytrack_platform.errors import ConfigurationError
from dytrack_platform.experiment.evaluate import actor_pool
from dytrack_platform.experiment.evaluate.evaluate import Evaluation, evaluate

pytestmark = pytest.mark.ray

TIMES = {"fps", "fps_by_rule", "reused"} | {
    f"ms_{part}" for part in ("p50", "p95", "p99", "start", "network", "crop", "decode")
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    points = [OperatingPoint(name="balanced", thresholds=(0.45, 0.5))]
    folder = tmp_path_factory.mktemp("model") / "tracker"
    return str(save(folder, DyTrackNetwork(VARIANTS["test"]), points))


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    names = []
    for number, frames in enumerate((40, 30, 20, 20)):
        folder = root / f"square-{number}"
        folder.mkdir()
        names.append(folder.name)
        boxes = []
        for k in range(frames):
            image = rng.integers(0, 80, (120, 160, 3), dtype=np.uint8)
            x, y = 20 + 2 * k, 30 + k
            image[y : y + 20, x : x + 24] = (40, 200, 220)
            cv2.imwrite(str(folder / f"{k:08d}.jpg"), image)
            boxes.append(f"{x},{y},24,20")
        (folder / "groundtruth.txt").write_text("\n".join(boxes) + "\n")
    (root / "test.txt").write_text("\n".join(names) + "\n")
    return list(readers.read("video", str(root), "test"))


def steady(summary):
    """Leave out what differs from run to run: times."""
    if isinstance(summary, dict):
        return {k: steady(v) for k, v in summary.items() if k not in TIMES}
    return [steady(v) for v in summary] if isinstance(summary, list) else summary


def job(out, model=None, **more):
    baselines = ("fixed", "random", "cycle", "oracle", "static", "cv2:MIL")
    settings = {"dataset": "video", "out": out, "model": model, "baselines": baselines}
    return Evaluation(**settings | more)


def test_points_baselines_and_peers_stand_side_by_side(ray_session, tmp_path, model, sequences):
    seen = []
    summary = evaluate(job(tmp_path, model, workers=2), sequences, report=seen.append)
    assert [point["name"] for point in summary["points"]] == ["balanced"]
    others = [point["name"] for point in summary["baselines"]]
    expected = ["exit-1", "exit-2", "exit-4", "static", "cv2-MIL", "random", "cycle", "oracle"]
    assert others == expected
    assert summary["frames"] == 110
    assert seen[-1].finished == seen[-1].total == 8 * 4
    assert {progress.total for progress in seen} == {8 * 4}, "random and cycle were foreseen"
    assert (seen[0].finished, seen[0].seconds_left) == (0, None)
    assert seen[-1].seconds_left == 0
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "results" / "balanced" / "square-0.txt").is_file()
    exits = {b["name"]: b["exit_share"] for b in summary["baselines"]}
    assert exits["exit-2"] == [0.0, 1.0]
    oracle = next(b for b in summary["baselines"] if b["name"] == "oracle")
    fixed = [b["ao"] for b in summary["baselines"] if b["name"].startswith("exit-")]
    assert oracle["ao"] >= max(fixed) - 0.01


def test_states_are_asked_for_and_results_without_them_are_another_thing(
    ray_session, tmp_path, model, sequences
):
    flags = np.arange(len(sequences[0])) > len(sequences[0]) // 2
    flagged = [replace(sequences[0], flagged=flags), *sequences[1:]]
    plain = evaluate(job(tmp_path, model, baselines=("static",)), flagged)
    assert plain["points"][0]["states"] is None
    asked = evaluate(job(tmp_path, model, baselines=("static",), states=True), flagged)
    assert asked["reused"] == len(flagged)  # those of the box that never moves
    counts = asked["points"][0]["states"]
    assert sum(counts["absent"].values()) == flags.sum()
    assert sum(counts["present"].values()) == len(flags) - 1 - flags.sum()
    assert asked["baselines"][0]["states"] is None
    stored = json.loads((tmp_path / "results" / "balanced" / "square-0.json").read_text())
    assert set(stored["states"][1:]) <= {"tracking", "doubtful", "lost", "found again"}


def test_a_second_run_reuses_everything_and_another_model_nothing(
    ray_session, tmp_path, model, sequences, tmp_path_factory
):
    small = {"baselines": ("static",), "workers": 1}
    first = evaluate(job(tmp_path, model, **small), sequences)
    again = evaluate(job(tmp_path, model, **small), sequences)
    assert (first["reused"], again["reused"]) == (0, 8)
    assert steady(again) == steady(first)
    torch.manual_seed(1)
    other = save(tmp_path_factory.mktemp("other") / "tracker", DyTrackNetwork(VARIANTS["test"]))
    changed = evaluate(job(tmp_path, str(other), points=("0.45,0.5",), **small), sequences)
    assert changed["reused"] == 4  # the box that never moves has no model


def test_a_worker_killed_mid_run_changes_nothing_but_times(
    ray_session, tmp_path, model, sequences, monkeypatch
):
    settings = {
        "baselines": ("fixed",),
        "workers": 2,
    }  # MIL draws from the clock: never twice alike
    undisturbed = evaluate(job(tmp_path / "a", model, **settings), sequences)
    pools = []
    make = actor_pool.ActorPool

    def keep(*arguments):
        pools.append(make(*arguments))
        return pools[-1]

    monkeypatch.setattr(actor_pool, "ActorPool", keep)
    done = []

    def kill_one(progress):
        done.append(progress)
        if len(done) == 3:
            ray.kill(pools[0].actors[0])

    disturbed = evaluate(job(tmp_path / "b", model, **settings), sequences, report=kill_one)
    assert [progress.finished for progress in done] == list(range(17))
    assert steady(disturbed) == steady(undisturbed)


def test_a_sequence_that_cannot_be_tracked_is_listed_and_the_others_are_scored(
    ray_session, tmp_path, model, sequences
):
    broken = replace(sequences[1], boxes_xywh=sequences[1].boxes_xywh * [1, 1, 0, 1])
    mixed = [sequences[0], broken, *sequences[2:]]
    summary = evaluate(job(tmp_path, model, baselines=()), mixed)
    assert summary["sequences"] == 3
    reject = json.loads((tmp_path / "rejects.jsonl").read_text().splitlines()[0])
    assert reject["sequence"] == "square-1"
    assert "has NaN or no area" in reject["reason"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"points": ("0.5",)}, "this tracker takes 2 thresholds"),
        ({"points": ("quick",)}, "operating point 'quick'"),
        ({"baselines": ("best",)}, "baselines and trackers: must be of fixed"),
        ({"protocol": "otb"}, "protocol: must be one of"),
        ({"model": None, "baselines": ("fixed",)}, "fixed needs a tracker of ours"),
        ({"model": None, "baselines": ()}, "give a tracker of ours, or another one"),
    ],
)
def test_a_mistake_is_refused_before_anything_starts(tmp_path, model, sequences, more, message):
    with pytest.raises(ConfigurationError, match=message):
        evaluate(job(tmp_path, **({"model": model} | more)), sequences)
    assert not list(tmp_path.iterdir())


def test_a_wrong_layout_is_refused_before_the_data_is_read(dytrack, tmp_path, model):
    words = ("--dataset", "video", "--root", "nowhere", "--out", str(tmp_path / "out"))
    done = dytrack("evaluate", "--model", model, *words, "--export", "x")
    assert done.returncode == 2
    assert "must be one of got10k, trackingnet, text, pytracking, got 'x'" in done.stderr


def test_sequences_are_left_out_by_name(dytrack, tmp_path):
    root = tmp_path / "data"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for k in range(3):
            cv2.imwrite(str(root / name / f"{k}.jpg"), np.zeros((60, 80, 3), np.uint8))
        (root / name / "groundtruth.txt").write_text("10,10,20,20\n" * 3)
    words = ("--dataset", "video", "--root", str(root), "--out", str(tmp_path / "out"))
    words += ("--tracker", "static", "--no-mlflow")
    done = dytrack("evaluate", *words, "--exclude", "c")
    assert done.returncode == 2
    assert "--exclude c: video has no sequence of that name" in done.stderr
    done = dytrack("evaluate", *words, "--exclude", "a", "--json")
    assert done.returncode == 0, done.stderr
    (static,) = json.loads(done.stdout)["baselines"]
    assert set(static["per_sequence"]) == {"b"}

"""Calibrate, export and run a tracker from the command line."""

import json
import math
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from dytrack_model import checkpoint
from dytrack_model.config import variant
from dytrack_model.cost import exit_gmacs
from dytrack_model.depth_value import ambiguity_weights, drop_weights
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import OperatingPoint, find_point
from dytrack_platform.datasets import readers
from dytrack_platform.datasets.synthetic import SynthConfig, make
from dytrack_platform.errors import ConfigurationError
from dytrack_platform.experiment.evaluate.calibrate import calibrate
from dytrack_platform.experiment.evaluate.closed_loops import Goal
from dytrack_platform.experiment.evaluate.runtime_config import RuntimeConfig


@pytest.fixture
def tracker(tmp_path):
    torch.manual_seed(0)
    points = [OperatingPoint(name="accurate", thresholds=(math.inf, math.inf))]
    return checkpoint.save(tmp_path / "tracker", DyTrackNetwork(variant("test")), points)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Three sequences of a few frames: calibrating follows each of them several times."""
    root = tmp_path_factory.mktemp("short")
    config = SynthConfig(frames=(5, 6), width=160, height=120, target_side=(20.0, 40.0))
    make(root, config, "test", 3, workers=1)
    return root


@pytest.fixture
def held_out(short):
    return ["--dataset", "got10k", "--root", str(short), "--split", "test"]


def test_a_point_of_a_name_that_means_something_else_is_refused_first(dytrack, tracker):
    words = ("calibrate", str(tracker), "--dataset", "got10k", "--root", "nowhere", "--risk", ".5")
    done = dytrack(*words, "--name", "full")
    assert done.returncode == 2
    assert "name of an operating point: 'full' means something else already" in done.stderr


def test_a_budget_becomes_a_point_in_the_tracker_with_its_record(dytrack, tracker, held_out):
    saved = checkpoint.load(tracker)
    costs = exit_gmacs(saved.network)
    budget = 0.5 * (costs[0] + costs[2])
    words = ["calibrate", str(tracker), *held_out, "--rule", "thresholds"]
    done = dytrack(*words, "--budget-gmacs", f"{budget}")
    assert done.returncode == 0, done.stderr
    after = checkpoint.load(tracker)
    assert [point.name for point in after.points] == ["accurate", "calibrated"]
    record = after.notes["calibration"]["calibrated"]
    assert record["promised"]["gmacs"] <= budget
    assert record["got"]["gmacs"] <= costs[2]
    assert record["full"]["shares"] == [0.0, 0.0, 1.0]
    assert record["full"]["regret"] == 0.0
    assert "got (closed loop)" in done.stdout
    again = dytrack(*words, "--budget-gmacs", "100", "--name", "deep")
    assert again.returncode == 0, again.stderr
    names = [point.name for point in checkpoint.load(tracker).points]
    assert names == ["accurate", "calibrated", "deep"]
    assert set(checkpoint.load(tracker).notes["calibration"]) == {"calibrated", "deep"}
    # A point that is there keeps its place.
    checkpoint.save(tracker, saved.network, checkpoint.load(tracker).points[1:])
    again = dytrack(*words, "--budget-gmacs", "100")
    assert again.returncode == 0, again.stderr
    assert [p.name for p in checkpoint.load(tracker).points] == ["calibrated", "deep"]


@pytest.mark.slow
def test_a_risk_that_few_sequences_cannot_prove_is_said_and_full_depth_kept(
    dytrack, tracker, held_out, tmp_path
):
    ranges = {"stage0": [(-1.0, 1.0)]}
    saved = checkpoint.load(tracker)
    notes = {"weights": "int8"}
    checkpoint.save(tracker, saved.network, saved.points, notes, weights="int8")
    checkpoint.save_ranges(tracker, ranges, 3)
    before = (tracker / checkpoint.DESCRIPTION).read_text()
    out = tmp_path / "other"
    words = ["calibrate", str(tracker), *held_out, "--risk", "0.05", "--out", str(out)]
    done = dytrack(*words, "--json")
    assert done.returncode == 0, done.stderr
    assert "no exit before the last could be proved" in done.stderr
    told = json.loads(done.stdout)
    assert (told["folder"], told["point"]["name"]) == (str(out), "calibrated")
    assert told["got"]["shares"] == [0.0, 0.0, 1.0]
    assert find_point(checkpoint.load(out).points, "calibrated", 3).thresholds == (
        math.inf,
        math.inf,
    )
    assert (tracker / checkpoint.DESCRIPTION).read_text() == before
    sizes = [(folder / checkpoint.WEIGHTS).stat().st_size for folder in (tracker, out)]
    assert sizes[0] == sizes[1], "it is kept in int8, as before"
    assert checkpoint.load(out).ranges == ranges


@pytest.mark.slow
def test_what_is_promised_at_full_depth_is_what_the_closed_loop_gives(tracker, short):
    """At infinite thresholds the recorded track and the closed loop are the same run."""
    saved = checkpoint.load(tracker)
    sequences = list(readers.read("got10k", str(short), "test"))
    outcome = calibrate(saved, sequences, Goal(gmacs=100.0), "deep", RuntimeConfig())
    assert outcome.promised.mean_iou == pytest.approx(outcome.full.mean_iou)
    assert outcome.got.mean_iou == pytest.approx(outcome.full.mean_iou)
    assert outcome.got.regret == 0.0
    assert (outcome.sequences, outcome.runtime, outcome.precision) == (3, "torch", "fp32")
    assert len(outcome.auroc) == len(outcome.calibration_error) == 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "give one of --budget-ms, --budget-gmacs and --risk, got 0"),
        (["--risk", "0.1", "--budget-ms", "3"], "got 2 of them"),
        (["--budget-gmacs", "1e-9"], "--budget-gmacs: the first exit alone costs"),
        (["--budget-ms", "1e-9"], "--budget-ms: the first exit alone costs"),
        (["--budget-gmacs", "-1"], "--budget-gmacs: must be a positive number, got -1"),
        (["--budget-ms", "nan"], "--budget-ms: must be a positive number, got nan"),
        (["--risk", "2"], "--risk: must lie between 0 and 1, got 2.0"),
        (["--risk", "0.1", "--confidence", "1"], "--confidence: must lie between 0 and 1, got 1.0"),
        (["--risk", ".1", "--confidence", "1.2"], "--confidence: must lie between 0 and 1"),
        (["--budget-gmacs", "9", "--hysteresis", "1"], "--hysteresis: must lie in [0, 1), got 1.0"),
    ],
)
def test_a_goal_that_makes_no_sense_is_refused(dytrack, tracker, held_out, words, sentence):
    done = dytrack("calibrate", str(tracker), *held_out, *words)
    assert done.returncode == 2
    assert sentence in done.stderr.replace("\n", " ")
    assert [point.name for point in checkpoint.load(tracker).points] == ["accurate"]


def test_a_tracker_with_one_exit_has_nothing_to_calibrate():
    saved = checkpoint.SavedTracker(network=DyTrackNetwork(variant("test", exits=(4,))))
    with pytest.raises(ConfigurationError, match="has one exit"):
        calibrate(saved, [], Goal(gmacs=1.0), "x", RuntimeConfig())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_an_export_is_described_and_tracks_a_video(dytrack, tracker, made, tmp_path, kind):
    from dytrack_pipelines.commands.demo import film

    video, box = film(made, tmp_path / "video.mp4")
    init = ",".join(f"{value:g}" for value in box)
    exported = tmp_path / "exported"
    done = dytrack("export", str(tracker), "--out", str(exported), "--runtime", kind)
    assert done.returncode == 0, done.stderr
    assert "largest difference to PyTorch" in done.stdout
    assert json.loads((exported / "stages.json").read_text())["kind"] == kind
    common = ["track", str(video), "--init", init, "--point", "accurate", "--precision", "fp32"]
    tables = []
    for name, model in (("torch", tracker), (kind, exported)):
        table = tmp_path / f"{name}.csv"
        done = dytrack(*common, "--model", str(model), "--csv", str(table))
        assert done.returncode == 0, done.stderr
        assert f"runtime {name}, fp32" in done.stdout
        rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
        tables.append([(row.pop(-1), [float(value) for value in row]) for row in rows])
    for (their_state, theirs), (our_state, ours) in zip(*tables, strict=True):
        assert our_state == their_state
        assert ours == pytest.approx(theirs, abs=0.01)


@pytest.mark.slow
def test_describe_names_the_runtime_that_it_timed(dytrack, tracker):
    done = dytrack("describe", str(tracker), "--frames", "1", "--runtime", "onnx")
    assert done.returncode == 0, done.stderr
    assert "median of 1 frames on onnx, fp32, 1 thread" in done.stdout


def test_a_runtime_that_computes_no_bf16_is_refused(dytrack, tracker):
    words = ["--runtime", "onnx", "--precision", "bf16"]
    done = dytrack("describe", str(tracker), *words)
    assert done.returncode == 2
    assert "computes in fp32 on a CPU, got bf16" in done.stderr.replace("\n", " ")


@pytest.mark.slow
def test_an_export_for_int8_finds_ranges_once_and_keeps_them(dytrack, tmp_path):
    pytest.importorskip("openvino")
    tracker = tmp_path / "own"
    shutil.copytree("tests/golden/tracker", tracker)
    words = ("export", str(tracker), "--runtime", "openvino", "--precision", "int8")
    first = dytrack(*words, "--out", str(tmp_path / "a"))
    assert first.returncode == 2
    assert "this tracker has no ranges yet" in first.stderr
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for k in range(3):
        pixels = np.random.default_rng(k).integers(0, 256, (96, 128, 3), dtype=np.uint8)
        cv2.imwrite(str(pictures / f"{k}.png"), pixels)
    ended = dytrack(*words, "--out", str(tmp_path / "a"), "--calibrate", str(pictures))
    assert ended.returncode == 0, ended.stderr
    assert "kept with the tracker" in ended.stdout
    again = dytrack(*words, "--out", str(tmp_path / "b"))
    assert again.returncode == 0, again.stderr
    wrong = dytrack("export", str(tracker), "--out", str(tmp_path / "c"), "--calibrate", "x")
    assert wrong.returncode == 2
    assert "give --precision int8 too" in wrong.stderr


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["auto", "ambiguity", "drop", "gain", "rollouts"])
def test_a_price_of_depth_is_found_in_closed_loop(dytrack, tracker, held_out, rule):
    saved = checkpoint.load(tracker)
    costs = exit_gmacs(saved.network)
    budget = 0.4 * costs[0] + 0.6 * costs[2]
    words = ["--rule", rule, "--audit-every", "9", "--budget-gmacs", f"{budget}"]
    done = dytrack("calibrate", str(tracker), *held_out, *words)
    assert done.returncode == 0, done.stderr
    assert "price" in done.stdout
    point = find_point(checkpoint.load(tracker).points, "calibrated", 3)
    assert point.value is not None
    assert point.value.audit_every == 9
    assert point.value.costs[-1] == 1
    assert (point.value.weights == drop_weights(3)) == (rule == "drop")
    assert (point.value.weights == ambiguity_weights(3)) == (rule in ("auto", "ambiguity"))
    record = checkpoint.load(tracker).notes["calibration"]["calibrated"]
    assert record["promised"] is None
    assert costs[0] < record["got"]["gmacs"] <= budget
    assert record["rule"] == ("ambiguity" if rule == "auto" else rule)


@pytest.mark.slow
def test_a_budget_below_the_whole_regions_first_exit_is_kept_over_the_narrow_one(
    dytrack, tracker, held_out, tmp_path
):
    saved = checkpoint.load(tracker)
    config = replace(saved.network.config, narrow_size=64)
    network = DyTrackNetwork(config)
    network.load_state_dict(saved.network.state_dict())
    folder = checkpoint.save(tmp_path / "narrow", network, saved.points)
    budget = 0.95 * exit_gmacs(network)[0]
    words = ["--budget-gmacs", f"{budget}", "--audit-every", "50"]
    refused = dytrack("calibrate", str(folder), *held_out, *words)
    assert refused.returncode == 2
    assert "the first exit alone costs" in refused.stderr
    done = dytrack("calibrate", str(folder), *held_out, *words, "--narrow", "--name", "quick")
    assert done.returncode == 0, done.stderr
    kept = checkpoint.load(folder)
    assert find_point(kept.points, "quick", 3).narrow
    assert kept.notes["calibration"]["quick"]["got"]["gmacs"] <= budget


def test_what_a_rule_by_value_cannot_keep_is_refused(dytrack, tracker, held_out):
    saved = checkpoint.load(tracker)
    costs = exit_gmacs(saved.network)
    tight = ["--budget-gmacs", f"{1.05 * costs[0]}"]
    for words, said in (
        ([*tight, "--rule", "drop", "--audit-every", "2"], "full depth in one frame of 2 costs"),
        (
            [*tight, "--rule", "thresholds", "--audit-every", "2"],
            "--audit-every: needs a --rule with a price",
        ),
        ([*tight, "--rule", "drop", "--hysteresis", "0.1"], "--hysteresis: moves thresholds"),
        ([*tight, "--rule", "thresholds", "--narrow"], "--narrow: needs a --rule with a price"),
        ([*tight, "--rule", "drop", "--narrow"], "--narrow: needs a tracker with a narrow"),
    ):
        done = dytrack("calibrate", str(tracker), *held_out, *words)
        assert done.returncode == 2
        assert said in done.stderr

"""The graphs of a tracker, their chain, and every runtime against eager PyTorch."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from dytrack_model import checkpoint, runtime
from dytrack_model.checkpoint import SavedTracker
from dytrack_model.config import variant
from dytrack_model.cost import exit_costs
from dytrack_model.errors import (
    CheckpointError,
    ConfigurationError,
    ExportError,
    RuntimeMissingError,
)
from dytrack_model.images import RGB
from dytrack_model.network import DyTrackNetwork
from dytrack_model.online import Tracker
from dytrack_model.policy import FixedExit, OperatingPoint, Thresholds
from dytrack_model.runtime import export
from dytrack_model.runtime.graphs import chain
from dytrack_model.runtime.torch_engine import TorchEngine
from tests.peaks import differ, keep_scores

SCHEMAS = ("none", "add", "concat", "cascade")
ATTENTION = ("joint", "template-cached")
POINTS = (
    OperatingPoint(name="balanced", thresholds=(0.5, float("inf")), hysteresis=0.1),
    OperatingPoint(name="accurate", thresholds=(float("inf"),) * 2),
)
BOX = (150.0, 100.0, 50.0, 40.0)


def build(**changes):
    torch.manual_seed(0)
    return DyTrackNetwork(variant("test", **changes)).eval()


def saved(**changes):
    return SavedTracker(network=build(**changes), points=POINTS, notes={"step": 7})


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports") / "onnx"
    export.export(saved(), folder, "onnx")
    return folder


@pytest.mark.parametrize(("schema", "attention"), list(itertools.product(SCHEMAS, ATTENTION)))
def test_every_graph_reads_only_what_an_earlier_one_gives(schema, attention):
    known = {"template", "search"}
    for graph in chain(variant("test", recycling=schema, attention=attention)):
        assert set(graph.inputs) <= known, graph.name
        assert not set(graph.outputs) & known, graph.name
        known |= set(graph.outputs)
    assert {"predicted_iou2", "score2", "size2", "offset2"} <= known


@pytest.mark.parametrize(("schema", "attention"), list(itertools.product(SCHEMAS, ATTENTION)))
def test_the_chained_graphs_equal_the_forward_pass(schema, attention, crops):
    network, (template, search) = build(recycling=schema, attention=attention), crops
    engine = TorchEngine(network)
    template_state = engine.embed_template(template.permute(0, 2, 3, 1).numpy())
    tensors = engine.begin(search.permute(0, 2, 3, 1).numpy(), template_state)
    with torch.inference_mode():
        expected = network(template, search)
    for k, output in enumerate(expected):
        engine.advance(k, tensors)
        torch.testing.assert_close(
            torch.from_numpy(engine.decide(k, tensors)), output.predicted_iou
        )
        torch.testing.assert_close(engine.locate(k, tensors), output.maps)


BOXES = (
    {"token_type": "target"},
    {"template_matching": True},
    {"token_type": "target", "template_matching": True, "decisioner": "both"},
    {"token_type": "target", "attention": "template-cached"},
)


@pytest.mark.parametrize("changes", BOXES)
def test_graphs_that_read_the_targets_box_equal_the_forward_pass(changes, crops):
    network, (template, search) = build(**changes), crops
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.6], [0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.9, 0.3]])
    engine = TorchEngine(network)
    state = engine.embed_template(template.permute(0, 2, 3, 1).numpy(), boxes.double().numpy())
    tensors = engine.begin(search.permute(0, 2, 3, 1).numpy(), state)
    with torch.inference_mode():
        expected = network(template, search, boxes)
    for k, output in enumerate(expected):
        engine.advance(k, tensors)
        torch.testing.assert_close(
            torch.from_numpy(engine.decide(k, tensors)), output.predicted_iou
        )
        torch.testing.assert_close(engine.locate(k, tensors), output.maps)
    with pytest.raises(ConfigurationError, match="this network reads the target's box"):
        engine.embed_template(template.permute(0, 2, 3, 1).numpy())


@pytest.mark.slow
@pytest.mark.parametrize("attention", ATTENTION)
def test_the_narrow_regions_graphs_export_and_run(attention, image, tmp_path):
    tracker = saved(narrow_size=96, attention=attention)
    policy = FixedExit(1, narrow=True)
    assert export.export(tracker, tmp_path / "e", "onnx") < 1e-4
    assert (tmp_path / "e/narrow_stage2.onnx").is_file()
    expected = list(Tracker(tracker.network, policy, states=None).track([image] * 3, BOX))
    assert all(one.narrow for one in expected[:1])
    for kind in ("onnx", "openvino"):
        engine = export.load(tmp_path / "e", kind, "fp32", threads=1)
        assert export.largest_difference(engine, TorchEngine(tracker.network)) < 1e-4
        found = list(Tracker(engine, policy, states=None).track([image] * 3, BOX))
        assert [one.narrow for one in found] == [one.narrow for one in expected]
        np.testing.assert_allclose(found[0].box_xywh, expected[0].box_xywh, atol=0.05)


@pytest.mark.slow
def test_the_narrow_region_rounds_by_the_whole_ones_ranges(image, tmp_path):
    tracker = saved(narrow_size=96)
    crops = [
        np.random.default_rng(side).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
        for side in (64, 128)
    ]
    pair = (crops[0], np.array([[0.5, 0.5, 0.5, 0.5]]), crops[1])
    ranges = export.find_ranges(tracker, [pair])
    assert set(ranges) == {graph.name for graph in chain(variant("test"))}
    engine = runtime.build(tracker.network, "openvino", "int8", threads=1, ranges=ranges)
    following = Tracker(engine, FixedExit(2, narrow=True))
    following.start(image, BOX)
    assert following.step(image).narrow


@pytest.mark.slow
@pytest.mark.parametrize("changes", BOXES, ids=lambda change: "-".join(change))
def test_graphs_that_read_the_targets_box_export_and_run(changes, image, tmp_path):
    tracker = saved(**changes)
    assert export.export(tracker, tmp_path / "e", "onnx") < 1e-4
    openvino = export.load(tmp_path / "e", "openvino", "fp32", threads=1)
    assert export.largest_difference(openvino, TorchEngine(tracker.network)) < 1e-4
    for one in (tracker.network, openvino):
        following = Tracker(one)
        following.start(image, BOX)
        assert np.isfinite(following.step(image).box_xywh).all()
    assert exit_costs(tracker.network, openvino, frames=1)[0].milliseconds > 0


@pytest.mark.slow
@pytest.mark.parametrize(("schema", "attention"), list(itertools.product(SCHEMAS, ATTENTION)))
def test_every_schema_and_attention_exports_and_runs_on_both_runtimes(schema, attention, tmp_path):
    tracker = saved(recycling=schema, attention=attention)
    assert export.export(tracker, tmp_path / "e", "onnx") < 1e-4
    openvino = export.load(tmp_path / "e", "openvino", "fp32", threads=1)
    assert export.largest_difference(openvino, TorchEngine(tracker.network)) < 1e-4


@pytest.mark.slow
def test_a_decisioner_that_reads_a_coarse_map_exports_and_runs(tmp_path):
    tracker = saved(decisioner="map", iou_token="read_only")
    assert export.export(tracker, tmp_path / "e", "onnx") < 1e-4
    openvino = export.load(tmp_path / "e", "openvino", "fp32", threads=1)
    assert export.largest_difference(openvino, TorchEngine(tracker.network)) < 1e-4


@pytest.mark.slow
def test_an_export_to_openvino_has_its_own_files_and_says_its_precision(tmp_path):
    tracker = saved()
    assert export.export(tracker, tmp_path / "e", "openvino", batch=2) < 1e-4
    exact = export.load(tmp_path / "e", precision="fp32")
    assert exact.precision == "fp32"
    assert export.largest_difference(exact, TorchEngine(tracker.network), batch=2) < 1e-4
    assert export.load(tmp_path / "e").precision in ("fp32", "bf16")
    rounded = export.load(tmp_path / "e", precision="int8")
    assert rounded.precision == "int8"
    assert 1e-4 < export.largest_difference(rounded, TorchEngine(tracker.network), batch=2) < 0.05
    with pytest.raises(ConfigurationError, match="runs on openvino, got 'onnx'"):
        export.load(tmp_path / "e", "onnx")


def test_the_description_says_how_to_chain_the_files(exported):
    description = json.loads((exported / export.DESCRIPTION).read_text())
    graphs = {graph["name"]: graph for graph in description["graphs"]}
    assert graphs["stage1"]["inputs"] == ["tokens0", "features0", "iou_token0"]
    assert graphs["stage1"]["outputs"] == ["tokens1", "features1", "iou_token1", "predicted_iou1"]
    assert graphs["stage2"]["outputs"] == ["features2", "predicted_iou2"]
    assert graphs["stage0"]["shapes"]["search"] == [1, 128, 128, 3]
    assert graphs["stage0"]["types"]["search"] == "uint8"
    assert all((exported / graph["file"]).is_file() for graph in graphs.values())
    assert description["notes"] == {"step": 7}
    assert export.describe(exported).points == POINTS


@pytest.mark.parametrize("name", [pytest.param("onnx", marks=pytest.mark.slow), "openvino"])
def test_a_runtime_follows_the_same_boxes_and_takes_the_same_exits_as_torch(name, image):
    network = build()
    engine = runtime.build(network, name, "fp32")
    assert (engine.runtime, engine.precision) == (name, "fp32")
    frames = [RGB(np.roll(image, 3 * shift, axis=1)) for shift in range(4)]
    for limits in ((0.0, 0.0), (2.0, 2.0), (2.0, 0.0)):
        ours, theirs = (Tracker(one, Thresholds(limits)) for one in (engine, network))
        for tracker in (ours, theirs):
            tracker.start(frames[0], BOX)
        for frame in frames[1:]:
            first, second = ours.step(frame), theirs.step(frame)
            np.testing.assert_allclose(first.box_xywh, second.box_xywh, atol=0.01)
            assert first.exit == second.exit
            assert first.predicted_iou == pytest.approx(second.predicted_iou, abs=1e-4)


@pytest.mark.slow
def test_what_is_kept_of_one_target_survives_another(image):
    """A runtime that reuses its output's memory must not let targets overwrite each other."""
    engine = runtime.build(build(attention="template-cached"), "openvino", "fp32")
    one, other = np.zeros((1, 64, 64, 3), np.uint8), np.full((1, 64, 64, 3), 200, np.uint8)
    search = image[None, :128, :128].copy()

    def score(template_state):
        tensors = engine.begin(search, template_state)
        engine.advance(0, tensors)
        return engine.locate(0, tensors).score.clone()

    template_state = engine.embed_template(one)
    before = score(template_state)
    engine.embed_template(other)
    torch.testing.assert_close(score(template_state), before)


def test_deciding_never_runs_a_head_that_is_not_used_on_any_runtime(exported, image):
    engine = export.load(exported, "onnx")
    ran = []
    for name, graph in list(engine._graphs.items()):
        engine._graphs[name] = lambda *t, name=name, graph=graph: (ran.append(name), graph(*t))[1]
    tracker = Tracker(engine, Thresholds((0.9999, 0.0001)))
    tracker.start(RGB(image), BOX)
    tracker.step(RGB(image))
    assert ran == ["template", "stage0", "stage1", "head1"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_running_leaves_a_process_all_of_its_cores(name, exported, image):
    """Bound to one, two trackers in two processes would share the first core of the machine."""
    tracker = Tracker(export.load(exported, name, "fp32", threads=1))
    tracker.start(image, BOX)
    allowed, running = os.sched_getaffinity(0), threading.get_native_id()
    seen, done = [], threading.Event()

    def watch():
        while not done.is_set():
            seen.append(os.sched_getaffinity(running))

    watcher = threading.Thread(target=watch)
    watcher.start()
    steps = 0
    while steps < 20 or len(seen) < 50:  # also where the other thread hardly gets its turn
        tracker.step(image)
        steps += 1
    done.set()
    watcher.join()
    assert all(cores == allowed for cores in seen)


_LET_GO = """
import gc, signal, sys
from dytrack_model.runtime import export

first, second = (export.load(sys.argv[1], "openvino", "fp32") for _ in range(2))
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("told"))
signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.slow
def test_a_process_that_let_two_trackers_go_can_still_be_told_to_end(exported):
    """OpenVINO left it with a stack for signals that was not its own any more."""
    words = [sys.executable, "-c", _LET_GO, str(exported)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "told\n"), done.stderr


def test_costs_are_measured_on_the_runtime_that_is_named(exported):
    costs = exit_costs(build(), export.load(exported), frames=2)
    assert [cost.depth for cost in costs] == [1, 2, 4]
    assert all(cost.milliseconds > 0 for cost in costs)


def test_an_export_that_disagrees_is_refused_and_leaves_the_old_one(exported, monkeypatch):
    before = sorted(path.name for path in exported.iterdir())
    monkeypatch.setattr(export, "largest_difference", lambda *_: float("nan"))
    with pytest.raises(ExportError, match="differ from PyTorch by nan"):
        export.export(saved(), exported, "onnx")
    assert sorted(path.name for path in exported.iterdir()) == before
    assert [path.name for path in exported.parent.iterdir()] == ["onnx"]


@pytest.mark.parametrize(("package", "name"), [("onnxruntime", "onnx"), ("openvino", "openvino")])
def test_a_runtime_that_is_not_installed_is_named_with_the_cure(package, name, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RuntimeMissingError, match=f"package {package} is not installed: pip"):
        runtime.build(build(), name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"runtime": "tensorrt"}, "runtime: must be one of torch, compile, onnx, openvino"),
        ({"precision": "int4"}, "precision: must be one of auto, fp32, bf16"),
        ({"runtime": "onnx", "precision": "bf16"}, "computes in fp32 on a CPU, got bf16"),
        ({"runtime": "onnx", "precision": "int8"}, "computes in fp32 on a CPU, got int8"),
        ({"precision": "int8"}, "PyTorch runs in fp32 or bf16, got int8"),
        ({"runtime": "onnx", "device": "cuda"}, "runs on the CPU, got 'cuda'"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        runtime.build(build(), **arguments)


@pytest.mark.parametrize("damage", ["no folder", "not json", "newer", "no graph"])
def test_a_damaged_export_is_refused_with_its_place(damage, exported, tmp_path):
    folder = tmp_path / "e"
    folder.mkdir()
    for path in exported.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    description = folder / export.DESCRIPTION
    if damage == "no folder":
        folder = tmp_path / "nowhere"
    elif damage == "not json":
        description.write_text("{")
    elif damage == "newer":
        description.write_text(json.dumps({**json.loads(description.read_text()), "format": 9}))
    else:
        (folder / "head1.onnx").unlink()
    with pytest.raises(CheckpointError, match=str(folder)):
        export.load(folder)


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
@pytest.mark.parametrize("damage", ["another graph", "another size", "another network"])
def test_a_graph_that_is_not_the_trackers_is_refused(kind, damage, exported, tmp_path):
    folder = tmp_path / "e"
    folder.mkdir()
    for path in exported.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    description = folder / export.DESCRIPTION
    values = json.loads(description.read_text())
    if damage == "another graph":
        (folder / "stage1.onnx").write_bytes((folder / "stage0.onnx").read_bytes())
        place = r"stage1\.onnx: not graph stage1 of this tracker \(expected tokens0.*, got search"
    elif damage == "another size":
        values["model"]["template_size"] = 96
        place = r"not graph template of this tracker \(expected template of \(1, 96, 96"
    else:
        values["model"]["search_size"] = 160
        place = r"not graph stage0 of this tracker \(expected search of \(1, 160, 160, 3\)"
    description.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=place):
        export.load(folder, kind, "fp32")


def test_an_export_with_the_names_of_before_is_asked_for_again(exported, tmp_path):
    description = json.loads((exported / export.DESCRIPTION).read_text())
    description["format"] = 2
    description["model"]["iou_token"] = "mutual"
    (tmp_path / export.DESCRIPTION).write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match="format 2, this version reads 3; export the tracker"):
        export.load(tmp_path)


TRAINED = Path(__file__).resolve().parents[3] / "golden" / "tracker"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "precision", "pixels", "tie"),
    [
        ("onnx", "fp32", 0.5, 1e-4),
        ("openvino", "fp32", 0.5, 1e-4),
        ("openvino", "bf16", 2.0, 0.02),
        ("openvino", "int8", 2.0, 0.02),
        ("torch", "bf16", 2.0, 0.02),
    ],
)
def test_runtimes_agree_over_a_hundred_frames_of_a_real_video(shared, name, precision, pixels, tie):
    """Frame by frame on the same crops, at every exit: the largest box difference in pixels.

    Where the reference scores two cells alike, rounding decides which is the peak, on each
    processor in its own way. So another peak is allowed, seldom, where the reference's own score
    is within ``tie`` of its best.
    """
    from dytrack_platform.datasets import readers

    sequences = readers.read("video", str(shared / "data" / "sequences"), "train")
    sequence = next(s for s in sequences if len(s) >= 101)
    trained = checkpoint.load(TRAINED)
    try:
        engine = runtime.build(trained.network, name, precision, threads=1)
    except ConfigurationError as error:
        pytest.skip(str(error))
    reference = Tracker(trained.network)
    frames = sequence.frames.iterate()
    reference.start(RGB(next(frames)), sequence.boxes_xywh[0])
    other = Tracker(engine)
    other.start(RGB(sequence.frames.read(0)), sequence.boxes_xywh[0])
    theirs, ours = (keep_scores(tracker) for tracker in (reference, other))
    gaps, lost = [], []
    for _ in range(100):
        image = RGB(next(frames))
        other.move_to(reference.box_xywh)
        theirs.clear()
        ours.clear()
        steps = zip(reference.step_all(image), other.step_all(image), theirs, ours, strict=True)
        for one, two, expected, found in steps:
            gap, same, below = differ(two, one, found, expected)
            (gaps if same else lost).append(gap if same else below)
    assert max(gaps) < pixels
    assert max(lost, default=0.0) < tie
    assert len(lost) <= 0.03 * (len(lost) + len(gaps))


# torch.compile itself uses what torch.jit deprecates.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.slow
def test_torch_compile_agrees_with_eager(image):
    network = build()
    engine = runtime.build(network, "compile", "fp32")
    assert (engine.runtime, engine.precision) == ("compile", "fp32")
    ours, theirs = Tracker(engine, FixedExit(0)), Tracker(network, FixedExit(0))
    for tracker in (ours, theirs):
        tracker.start(RGB(image), BOX)
    for shift in range(1, 4):
        frame = RGB(np.roll(image, 3 * shift, axis=1))
        np.testing.assert_allclose(
            ours.step(frame).box_xywh, theirs.step(frame).box_xywh, atol=0.01
        )


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.slow
def test_many_stages_and_trackers_can_be_compiled_in_one_process():
    """PyTorch allows eight compilations of one function by default; stages share their code."""
    for _ in range(2):
        engine = runtime.build(build(), "compile", "fp32")
        crops = [np.zeros((1, side, side, 3), np.uint8) for side in (64, 128)]
        with torch._dynamo.config.patch(recompile_limit=1):
            tensors = engine.begin(crops[1], engine.embed_template(crops[0]))
            for index in range(engine.exit_count):
                engine.advance(index, tensors)
        assert f"features{engine.exit_count - 1}" in tensors


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
@pytest.mark.parametrize("length", [0, 1, 2000])
def test_a_graph_that_is_cut_short_is_damage_and_no_traceback(exported, tmp_path, kind, length):
    folder = tmp_path / "cut"
    shutil.copytree(exported, folder)
    graph = folder / "stage1.onnx"
    graph.write_bytes(graph.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"is damaged; export again"):
        export.load(folder, kind)


def test_an_export_for_several_targets_is_not_tracked_with(exported, tmp_path):
    folder = tmp_path / "two"
    shutil.copytree(exported, folder)
    path = folder / export.DESCRIPTION
    path.write_text(json.dumps({**json.loads(path.read_text()), "batch": 2}))
    with pytest.raises(ConfigurationError, match=r"batches of 2; .* export with --batch 1"):
        Tracker.load(folder)


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("tpu", "must be cpu, cuda, cuda:NUMBER or mps, got 'tpu'"),
        ("meta", "must be cpu, cuda, cuda:NUMBER or mps, got 'meta'"),
        ("cuda:99", "got 'cuda:99'; take cpu"),
    ],
)
def test_a_device_that_is_not_there_is_refused_before_weights_are_read(device, said, tmp_path):
    with pytest.raises(ConfigurationError, match=said):
        Tracker.load(tmp_path / "nowhere", device=device)


@pytest.mark.parametrize(
    ("frames", "precision", "device", "expected"),
    [
        (None, "auto", "cpu", "openvino"),
        (runtime.WORTH_CONVERTING, "auto", "cpu", "openvino"),
        (runtime.WORTH_CONVERTING - 1, "auto", "cpu", None),
        (None, "bf16", "cpu", None),
        (None, "auto", "cuda:0", None),
    ],
)
def test_long_videos_are_worth_converting_a_tracker_for(frames, precision, device, expected):
    assert runtime.quickest("reference", frames, precision, device) == expected


def test_an_export_and_whoever_lacks_openvino_keep_their_runtime(exported, monkeypatch):
    assert runtime.quickest(exported, None, "auto", "cpu") is None
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert runtime.quickest("reference", None, "auto", "cpu") is None

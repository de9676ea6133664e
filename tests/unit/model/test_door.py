"""``from dytrack_model import Tracker``: what it costs, what it opens, and what it leaves alone."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

import dytrack_model
from dytrack_model import RGB, Tracker, checkpoint
from dytrack_model.config import variant
from dytrack_model.errors import BoxError, CheckpointError, ConfigurationError, ImageError
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import OperatingPoint
from dytrack_model.runtime import export
from dytrack_model.runtime.graphs import evaluation_copy

BOX = (150.0, 100.0, 50.0, 40.0)
POINTS = (
    OperatingPoint(name="fast", thresholds=(0.0, 0.0)),
    OperatingPoint(name="balanced", thresholds=(2.0, 0.0)),
)


@pytest.fixture
def run(network, tmp_path):
    """The folder of a run, as training leaves it."""
    checkpoint.save(tmp_path / "run" / "tracker", network, POINTS)
    return tmp_path / "run"


@pytest.fixture
def frames(image):
    return [np.roll(image, 3 * index, axis=1) for index in range(4)]


def loaded(code):
    """Names of the large libraries that a new process has imported after some code."""
    large = "{'torch', 'timm', 'cv2', 'ray', 'mlflow', 'pydantic', 'pyarrow', 'onnx', 'openvino'}"
    code = f"import sys\n{code}\nprint(*sorted({large} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_the_door_costs_nothing_until_a_name_is_used():
    assert loaded("import dytrack_model") == set()
    assert loaded("import dytrack_model; dir(dytrack_model)") == set()
    assert loaded("from dytrack_model import RGB") == {"cv2"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "Tracker" else name
        for name in dytrack_model.__all__
    ],
)
def test_no_name_of_the_door_pulls_in_the_platforms_libraries(name):
    assert getattr(dytrack_model, name).__name__ == name
    assert name in dir(dytrack_model)
    found = loaded(f"from dytrack_model import {name}")
    assert found <= {"torch", "timm", "cv2"}


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Trackers'"):
        _ = dytrack_model.Trackers


def test_a_run_a_tracker_and_an_export_open_alike(run, frames):
    exported = run.parent / "exported"
    export.export(checkpoint.load(run), exported, "onnx")
    trackers = [Tracker.load(place) for place in (run, str(run / "tracker"), exported)]
    found = [list(tracker.track(frames, BOX)) for tracker in trackers]
    assert [tracker.engine.runtime for tracker in trackers] == ["torch", "torch", "onnx"]
    assert [p.exit_index for p in found[0]] == [1, 1, 1]
    assert [p.exit for p in found[0]] == [2, 2, 2]
    for other in found[1:]:
        for ours, theirs in zip(found[0], other, strict=True):
            np.testing.assert_allclose(ours.box_xywh, theirs.box_xywh, atol=0.01)


@pytest.mark.parametrize(
    ("point", "depth"), [("fast", 1), ("balanced", 2), ("full", 4), ("2,2", 4), ("0,2", 1)]
)
def test_a_point_is_a_stored_one_full_depth_or_thresholds(run, frames, point, depth):
    assert {p.exit for p in Tracker.load(run, point).track(frames, BOX)} == {depth}


@pytest.mark.parametrize(
    ("where", "arguments", "error", "message"),
    [
        ("run", {"point": "best"}, ConfigurationError, "'best': this tracker has fast, balanced"),
        ("run", {"point": "0.5"}, ConfigurationError, "takes 2 thresholds, one per exit but the"),
        ("run", {"runtime": "tensorrt"}, ConfigurationError, "runtime: must be one of torch"),
        ("gone", {}, CheckpointError, "gone: no such tracker; give its folder, or that of its run"),
        ("empty", {}, CheckpointError, "empty: not a tracker: it has no tracker.json"),
        ("exported", {"device": "cuda"}, ConfigurationError, "an export runs on the CPU"),
    ],
)
def test_what_cannot_be_opened_is_named(run, where, arguments, error, message):
    (run.parent / "empty").mkdir()
    (run.parent / "exported").mkdir()
    (run.parent / "exported" / export.DESCRIPTION).write_text("{}")
    with pytest.raises(error, match=message):
        Tracker.load(run.parent / where, **arguments)


def test_what_is_of_another_kind_is_told_in_a_sentence(run):
    with pytest.raises(ConfigurationError, match="tracker: must be a folder's path or a name"):
        Tracker.load(None)
    for threads in (-1, "x"):
        with pytest.raises(ConfigurationError, match="threads: must be 0 or more"):
            Tracker.load(run, threads=threads)
    tracker = Tracker.load(run)
    with pytest.raises(ConfigurationError, match=r"hann: must lie in \[0, 1\], got 2"):
        Tracker(tracker.engine, hann=2)
    with pytest.raises(ImageError, match="a video must be a file, a folder of images, or an"):
        next(tracker.track(None, (1, 1, 5, 5)))
    with pytest.raises(ImageError, match="channels: must be rgb or bgr, got 'xyz'"):
        next(tracker.track("video.mp4", (1, 1, 5, 5), channels="xyz"))


def test_a_name_of_the_registry_is_left_to_the_platform():
    with pytest.raises(ConfigurationError, match=r"dytrack_platform\.load_tracker reads it"):
        Tracker.load("models:/dytrack@champion")


def test_every_kind_of_frame_gives_the_same_boxes(run, frames, tmp_path):
    tracker = Tracker.load(run)
    blue_first = [np.ascontiguousarray(frame[..., ::-1]) for frame in frames]
    paths = [tmp_path / f"{index}.png" for index in range(len(frames))]
    for path, frame in zip(paths, blue_first, strict=True):
        cv2.imwrite(str(path), frame)
    boxes = []
    for given, channels in (
        (frames, "rgb"),
        (blue_first, "bgr"),
        ([RGB(frame) for frame in frames], "rgb"),
        (paths, "rgb"),
    ):
        tracker.start(given[0], BOX, channels=channels)
        boxes.append([tracker.step(frame).box_xywh for frame in given[1:]])
        boxes.append([p.box_xywh for p in tracker.track(given, BOX, channels=channels)])
    boxes.append([p.box_xywh for p in tracker.track(str(tmp_path), BOX)])
    for other in boxes[1:]:
        np.testing.assert_array_equal(other, boxes[0])
    # A tracker that was started anew takes arrays with red first again.
    tracker.start(frames[0], BOX)
    np.testing.assert_array_equal(tracker.step(frames[1]).box_xywh, boxes[0][0])


def test_a_video_file_is_followed_to_its_end(run, frames, tmp_path):
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (320, 240))
    for frame in frames:
        writer.write(frame[..., ::-1])
    writer.release()
    found = list(Tracker.load(run).track(path, BOX))
    assert len(found) == len(frames) - 1


def test_tracking_nothing_is_refused(run):
    with pytest.raises(ImageError, match="at least one frame"):
        next(Tracker.load(run).track([], BOX))
    with pytest.raises(BoxError, match="no area"):
        next(Tracker.load(run).track([np.zeros((9, 9, 3), np.uint8)], (1, 1, 0, 0)))


@pytest.mark.parametrize("use", ["track", "export"])
def test_the_callers_network_stays_as_it_is(use, frames, tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = DyTrackNetwork(variant("test")).train()
    network.heads[0].eval()
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fused = [block.attn.fused_attn for block in network.backbone.blocks]
    monkeypatch.setattr(network, "to", lambda *_: pytest.fail("the network was moved"))
    if use == "track":
        list(Tracker(network).track(frames, BOX))
    else:
        saved = checkpoint.SavedTracker(network=network)
        export.export(saved, tmp_path / "exported", "onnx")
    assert [module.training for module in network.modules()] == modes
    assert [block.attn.fused_attn for block in network.backbone.blocks] == fused
    assert network.state_dict().keys() == before.keys()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_tracker_shares_the_weights_of_a_network_on_its_device(network, frames):
    """What is trained is what is tracked with, and memory is not taken twice."""
    tracker = Tracker(network)
    before = list(tracker.track(frames, BOX))
    with torch.no_grad():
        for parameter in network.heads.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    after = list(tracker.track(frames, BOX))
    assert not np.array_equal(before[0].box_xywh, after[0].box_xywh)


def test_a_copy_on_another_device_leaves_the_network_where_it_is(network):
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    copied = evaluation_copy(network, "meta")
    assert {value.device.type for value in copied.state_dict().values()} == {"meta"}
    assert not copied.training
    assert network.training
    for name, value in network.state_dict().items():
        assert value.device.type == "cpu"
        assert torch.equal(value, before[name]), name

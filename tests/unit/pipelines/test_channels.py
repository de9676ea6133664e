"""Whatever way a frame takes into our tracker, red arrives as red."""

import sys
import warnings
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from dytrack_model import Tracker, checkpoint
from dytrack_model.config import variant
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import OperatingPoint
from dytrack_model.runtime.engine import Engine
from dytrack_platform.datasets import readers
from dytrack_platform.evaluation.tracking.protocol import run_sequence

FRAMES = 4
BOX = (40.0, 30.0, 30.0, 30.0)


@pytest.fixture
def tracker(tmp_path):
    torch.manual_seed(0)
    points = [OperatingPoint(name="balanced", thresholds=(0.4, 0.4))]
    return checkpoint.save(tmp_path / "tracker", DyTrackNetwork(variant("test")), points)


@pytest.fixture
def sequence(tmp_path):
    """A video and a GOT-10k sequence whose every pixel is red; OpenCV writes blue first."""
    red = np.zeros((120, 160, 3), np.uint8)
    red[..., 2] = 255
    folder = tmp_path / "data" / "test" / "red"
    folder.mkdir(parents=True)
    for index in range(FRAMES):
        cv2.imwrite(str(folder / f"{index + 1:08d}.jpg"), red)
    (folder / "groundtruth.txt").write_text("40,30,30,30\n" * FRAMES)
    (tmp_path / "data" / "test" / "list.txt").write_text("red\n")
    writer = cv2.VideoWriter(
        str(tmp_path / "red.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (160, 120)
    )
    for _ in range(FRAMES):
        writer.write(red)
    writer.release()
    return next(readers.read("got10k", str(tmp_path / "data"), "test"))


@pytest.fixture
def seen(monkeypatch):
    """The mean colour of every crop that an engine is given, black borders left out."""
    colours = []
    embed, begin = Engine.embedding, Engine.begin

    def note(crops):
        pixels = crops.reshape(-1, 3)
        colours.append(pixels[pixels.any(axis=1)].mean(axis=0))

    monkeypatch.setattr(Engine, "embedding", lambda s, c, b: (note(c), embed(s, c, b))[1])
    monkeypatch.setattr(Engine, "begin", lambda s, c, kept: (note(c), begin(s, c, kept))[1])
    return colours


def assert_red(seen, crops=FRAMES):
    assert len(seen) >= crops
    for red, green, blue in seen:
        assert red > 200, "the network saw another colour than red"
        assert max(green, blue) < 50


def test_track(dytrack, tracker, sequence, seen, tmp_path):
    done = dytrack(
        "track", str(tmp_path / "red.mp4"), "--init", "40,30,30,30", "--model", str(tracker)
    )
    assert done.returncode == 0, done.stderr
    assert_red(seen)


def test_the_trackers_own_loop_over_a_video_and_a_folder(tracker, sequence, seen, tmp_path):
    for video in (tmp_path / "red.mp4", tmp_path / "data" / "test" / "red"):
        seen.clear()
        assert len(list(Tracker.load(tracker).track(video, BOX))) == FRAMES - 1
        assert_red(seen)


def test_evaluate(tracker, sequence, seen):
    run_sequence(Tracker.load(tracker), sequence)
    assert_red(seen)


def test_calibrate(tracker, sequence, seen):
    from dytrack_platform.experiment.evaluate.calibrate import observe
    from dytrack_platform.experiment.evaluate.closed_loops import follow

    loaded = Tracker.load(tracker)
    observe(loaded.engine, sequence)
    assert_red(seen)
    seen.clear()
    follow(loaded.engine, loaded.policy, sequence)
    assert_red(seen)


def test_a_published_model(tracker, sequence, seen):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow asks for its own kinds of type hints
        from dytrack_platform.experiment.registry.pyfunc_model import PublishedTracker

    model, context = PublishedTracker(), SimpleNamespace(artifacts={"tracker": str(tracker)})
    model.load_context(context)
    frames = np.stack([sequence.frames.read(index) for index in range(FRAMES)])
    model.predict(context, {"frames": frames, "box": np.array([BOX])})
    assert_red(seen)


def test_trax(tracker, sequence, seen, monkeypatch, tmp_path):
    """The protocol's library is stood for by the few names that the server uses."""
    paths = sorted((tmp_path / "data" / "test" / "red").glob("*.jpg"))
    said = []

    class Server:
        def __init__(self, *_, **__):
            box = SimpleNamespace(bounds=lambda: BOX)
            self.requests = [
                SimpleNamespace(
                    type="frame" if index else "initialize",
                    image={"color": SimpleNamespace(path=lambda path=path: str(path))},
                    objects=[(box, {})],
                )
                for index, path in enumerate(paths)
            ]

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def wait(self):
            return self.requests.pop(0) if self.requests else SimpleNamespace(type="quit")

        def status(self, objects):
            said.append(objects)

    stub = SimpleNamespace(
        Server=Server,
        Region=SimpleNamespace(RECTANGLE="rectangle"),
        Image=SimpleNamespace(PATH="path"),
        Rectangle=SimpleNamespace(create=lambda *box: box),
    )
    monkeypatch.setitem(sys.modules, "trax", stub)
    monkeypatch.delitem(sys.modules, "dytrack_platform.interop.trax", raising=False)
    from dytrack_platform.interop.trax import serve

    assert serve(Tracker.load(tracker), "DyTrack") == FRAMES
    assert len(said) == FRAMES
    assert_red(seen)

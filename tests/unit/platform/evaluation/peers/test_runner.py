"""The program that runs another tracker, driven in this process by the lines that it would read."""

import io
import json
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from dytrack_platform.evaluation.peers import runner
from dytrack_platform.evaluation.peers.runner import Found


class Follower:
    """Keeps the first box, and notes what it is given."""

    def __init__(self):
        self.calls, self.corners = [], []

    def start(self, image, box):
        self.calls.append("start")
        self.corners.append(image[0, 0].tolist())
        self.box = list(box)

    def step(self, image):
        self.calls.append("step")
        return Found(self.box, 0.5, lost=False, exit=1)


@pytest.fixture
def ask(monkeypatch):
    """Return a function that serves requests and gives the exit code and the answers."""

    def run(make, *requests, **options):
        lines = "".join(json.dumps(request) + "\n" for request in requests)
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        answers = io.StringIO()
        code = runner.serve(make, answers, **options)
        return code, [json.loads(line) for line in answers.getvalue().splitlines()]

    return run


@pytest.fixture
def images(tmp_path):
    """Three blue images of 40 x 30 pixels; the second one does not decode."""
    blue = np.zeros((30, 40, 3), np.uint8)
    blue[..., 0] = 200
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    for path in paths:
        cv2.imwrite(str(path), blue)
    paths[1].write_bytes(b"no picture")
    return [str(path) for path in paths]


def request(images=(), video=None, frames=3):
    return {"images": list(images), "video": video, "frames": frames, "box": [1, 2, 10, 8]}


def test_a_sequence_is_answered_frame_by_frame(ask, images):
    follower = Follower()
    code, said = ask(lambda: (follower, "fake 1"), request(images), request(images))
    assert code == 0
    assert said[0] == {"ready": "fake 1"}
    first, second = said[1:5], said[5:]
    for lines in (first, second):
        zero, broken, last, end = lines
        assert (zero["frame"], zero["box"], zero["size"]) == (0, [1, 2, 10, 8], [40, 30])
        assert (broken["frame"], broken["box"]) == (1, None)
        assert (last["score"], last["lost"], last["exit"]) == (0.5, False, 1)
        assert last["ms"] >= 0
        assert end == {"done": True}
    # Only before the first sequence it warms up; each start counts from the first frame again.
    assert follower.calls == ["start", "step"] * 3 + ["start", "step"] * 2
    assert follower.corners[0] == [200, 0, 0]


def test_a_tracker_may_want_red_first(ask, images):
    follower = Follower()
    ask(lambda: (follower, ""), request(images), red_first=True)
    assert follower.corners[0] == [0, 0, 200]


def test_frames_of_a_video_and_its_early_end(ask, tmp_path):
    path = str(tmp_path / "film.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 25, (40, 30))
    for _ in range(2):
        writer.write(np.zeros((30, 40, 3), np.uint8))
    writer.release()
    code, said = ask(lambda: (Follower(), ""), request(video=path))
    assert code == 0
    assert [line.get("box") for line in said[1:4]] == [[1, 2, 10, 8], [1, 2, 10, 8], None]


def test_what_goes_wrong_is_said_in_one_line(ask, tmp_path):
    def missing():
        raise runner.Missing("a tracker that nobody has")

    def broken():
        raise ValueError("one\n  two")

    assert ask(missing) == (0, [{"missing": "a tracker that nobody has"}])
    assert ask(broken) == (1, [{"error": "ValueError: one two"}])
    code, said = ask(lambda: (Follower(), ""), request([str(tmp_path / "gone.png")], frames=1))
    assert (code, said[-1]) == (1, {"error": "ValueError: the first frame does not decode"})
    assert runner._in_one_line(MemoryError()) == "MemoryError"


class Made:
    """A tracker as OpenCV has them."""

    good = True

    def init(self, image, box):
        self.box = box

    def update(self, image):
        return self.good, (5, 6, 7, 8)

    def getTrackingScore(self):
        return 0.25


def test_opencvs_trackers_get_whole_pixels_inside_the_image(monkeypatch):
    made = []
    monkeypatch.setattr(cv2, "TrackerMIL_create", lambda: made.append(Made()) or made[-1])
    tracker = runner.OpenCVTracker("MIL", {})
    image = np.zeros((30, 40, 3), np.uint8)
    tracker.start(image, [-3.4, 100.0, 90.0, 0.2])
    assert made[-1].box == (0, 28, 40, 2)
    assert tracker.step(image) == Found([5.0, 6.0, 7.0, 8.0], None, None)
    tracker.start(image, [1.0, 2.0, 3.0, 4.0])
    assert len(made) == 2, "one cannot be started twice"


@pytest.mark.parametrize(("kind", "scores", "says"), [("Nano", 0.25, None), ("Vit", 0.25, True)])
def test_where_nothing_is_found_the_last_box_stays(monkeypatch, kind, scores, says):
    parameters = SimpleNamespace()
    monkeypatch.setattr(cv2, f"Tracker{kind}_Params", lambda: parameters, raising=False)
    monkeypatch.setattr(cv2, f"Tracker{kind}_create", lambda given: Made(), raising=False)
    tracker = runner.OpenCVTracker(kind, {"net": "file.onnx"})
    image = np.zeros((30, 40, 3), np.uint8)
    tracker.start(image, [1.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr(Made, "good", False)
    assert tracker.step(image) == Found([1.0, 2.0, 3.0, 4.0], scores, says)
    assert parameters.net == "file.onnx"
    assert getattr(parameters, "tracking_score_threshold", None) == (0.2 if kind == "Vit" else None)


def test_a_tracker_that_this_opencv_lacks_is_named(monkeypatch):
    monkeypatch.delattr(cv2, "TrackerCSRT_create", raising=False)
    with pytest.raises(runner.Missing, match=r"TrackerCSRT in OpenCV .* of "):
        runner.OpenCVTracker("CSRT", {})


class Network:
    """Stands for NanoTrack's networks: the head finds the target where it is told to."""

    peak, sides = (7, 7), (30.0, 30.0, 30.0, 30.0)

    def __init__(self):
        self.given = {}

    def setInput(self, blob, name=""):
        self.given[name] = blob

    def forward(self, names=None):
        if names is None:
            return self.given[""]
        classes = np.zeros((1, 2, 15, 15))
        classes[0, 1] = -9.0
        classes[0, 1][self.peak] = 9.0
        distances = np.broadcast_to(np.array(self.sides)[None, :, None, None], (1, 4, 15, 15))
        return classes, distances.copy()


@pytest.fixture
def nano(monkeypatch):
    monkeypatch.setattr(cv2.dnn, "readNet", lambda path: Network())
    monkeypatch.setattr(runner, "cv2", cv2, raising=False)
    job = {"kind": "Nano3", "threads": 1, "files": {"backbone": "b.onnx", "head": "h.onnx"}}
    before = cv2.getNumThreads()
    tracker, about = runner._make(job)
    yield tracker
    cv2.setNumThreads(before)
    assert about == f"OpenCV {cv2.__version__}"


def test_nanotrack_three_stays_on_a_peak_in_the_middle(nano):
    image = np.full((200, 200, 3), 90, np.uint8)
    nano.start(image, [80.0, 80.0, 40.0, 40.0])
    assert nano._template.shape == (1, 3, 127, 127)
    found = nano.step(image)
    x, y, w, h = found.box
    assert (x + w / 2, y + h / 2) == pytest.approx((100.0, 100.0))
    assert found.score > 0.99
    # The target's side is 63.5 of the crop's pixels; the head says 60, and it follows slowly.
    assert 40 * 60 / 63.5 < w < 40


def test_nanotrack_three_follows_a_peak_beside_the_middle_and_stays_in_the_frame(nano, monkeypatch):
    image = np.full((200, 200, 3), 90, np.uint8)
    nano.start(image, [80.0, 80.0, 40.0, 40.0])
    monkeypatch.setattr(Network, "peak", (7, 9))
    x, y, w, h = nano.step(image).box
    assert x + w / 2 == pytest.approx(100 + 2 * 16 * 80 / 127)  # two cells of 16 pixels of the crop
    assert y + h / 2 == pytest.approx(100.0)
    for _ in range(20):
        x, y, w, h = nano.step(image).box
    assert x + w / 2 == 200.0


def test_a_limit_of_memory_is_set_only_where_there_is_one(monkeypatch):
    import resource

    asked = []
    monkeypatch.setattr(resource, "setrlimit", lambda *limits: asked.append(limits))
    runner.limit_memory(0)
    runner.limit_memory(1 << 30)
    assert asked == [(resource.RLIMIT_AS, (1 << 30, 1 << 30))]
    monkeypatch.setitem(sys.modules, "resource", None)
    runner.limit_memory(1 << 30)  # a system without
    assert len(asked) == 1

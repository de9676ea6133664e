"""The trackers that come with the package."""

import json
import time

import cv2
import numpy as np
import pytest

from dytrack_model import Tracker, checkpoint
from dytrack_model.folders import SHIPPED
from dytrack_model.pretrained.files import read_tensors

FOLDER = SHIPPED["reference"]


@pytest.fixture(scope="module")
def video():
    """Return frames (RGB) in which a patterned ball crosses a cluttered ground, and its boxes."""
    rng = np.random.default_rng(5)
    ground = cv2.resize(rng.integers(0, 200, (9, 12, 3), np.uint8), (320, 240))
    ball = cv2.resize(rng.integers(40, 256, (5, 5, 3), np.uint8), (48, 48))
    disc = cv2.circle(np.zeros((48, 48), np.uint8), (24, 24), 23, 1, -1).astype(bool)
    frames, boxes = [], []
    for step in range(10):
        frame = ground.copy()
        x, y = 60 + 12 * step, 50 + 8 * step
        frame[y : y + 48, x : x + 48][disc] = ball[disc]
        frames.append(frame)
        boxes.append((x + 1, y + 1, 47, 47))
    return frames, boxes


def overlap(one, other):
    x1, y1 = max(one[0], other[0]), max(one[1], other[1])
    x2 = min(one[0] + one[2], other[0] + other[2])
    y2 = min(one[1] + one[3], other[1] + other[3])
    common = max(0, x2 - x1) * max(0, y2 - y1)
    return common / (one[2] * one[3] + other[2] * other[3] - common)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize(
    "point",
    [
        pytest.param("fast", marks=pytest.mark.slow),
        "balanced",
        pytest.param("accurate", marks=pytest.mark.slow),
    ],
)
def test_it_follows_what_it_has_never_seen(video, name, point):
    frames, boxes = video
    found = list(Tracker.load(name, point).track(frames, boxes[0]))
    overlaps = [overlap(one.box_xywh, box) for one, box in zip(found, boxes[1:], strict=True)]
    assert np.mean(overlaps) > 0.6
    assert min(overlaps) > 0.3
    assert not any(one.lost for one in found)


def test_it_is_less_sure_where_the_target_is_gone(video):
    frames, boxes = video
    tracker = Tracker.load("reference", "full")
    tracker.start(frames[0], boxes[0])
    there = tracker.step(frames[1]).predicted_iou
    empty = np.full_like(frames[0], 90)
    assert tracker.step(empty).predicted_iou < there - 0.2


def test_it_opens_quickly():
    Tracker.load("reference")  # imports
    began = time.process_time()  # not what else the machine does
    Tracker.load("reference")
    assert time.process_time() - began < 2


def test_their_files_are_small_together():
    sizes = [(folder / checkpoint.WEIGHTS).stat().st_size for folder in SHIPPED.values()]
    assert sum(sizes) < 32 * 2**20
    halves = read_tensors(FOLDER / checkpoint.WEIGHTS).values()
    assert {v.dtype.itemsize for v in halves if v.is_floating_point()} == {2}


@pytest.mark.parametrize("folder", SHIPPED.values(), ids=lambda path: path.name)
def test_a_card_lies_beside_each(folder):
    card = (folder / "MODEL_CARD.md").read_text()
    for said in ("DINOv2", "Apache-2.0", "CC BY-NC", "NanoTrack"):
        assert said in card
    points = json.loads((folder / checkpoint.DESCRIPTION).read_text())["points"]
    assert [point["name"] for point in points] == ["fast", "balanced", "accurate"]


def test_a_folder_of_ones_own_can_be_called_so_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved = checkpoint.load("reference")
    (tmp_path / "reference").mkdir()
    assert checkpoint.find("reference") == FOLDER
    checkpoint.save("./reference/tracker", saved.network, notes={"own": True})
    assert checkpoint.load("./reference/tracker").notes == {"own": True}

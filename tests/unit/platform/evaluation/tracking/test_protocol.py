from dataclasses import replace

import numpy as np
import pytest

from dytrack_platform.datasets.sequence import VideoSequence
from dytrack_platform.errors import ConfigurationError, DataError, RuntimeMissingError
from dytrack_platform.evaluation.tracking.opencv_trackers import make_third_party
from dytrack_platform.evaluation.tracking.protocol import StaticBox, Step, run_sequence


class InMemoryFrames:
    """Frames in memory: a bright square that moves; some may not decode."""

    def __init__(self, boxes, broken=()):
        self._boxes = boxes
        self._broken = set(broken)

    def __len__(self):
        return len(self._boxes)

    def path(self, index):
        return f"frames/{index:04d}.jpg"

    def read(self, index):
        image = np.random.default_rng(3).integers(0, 60, (120, 160, 3), dtype=np.uint8)
        x, y, w, h = self._boxes[index].astype(int)
        image[y : y + h, x : x + w] = (230, 180, 40)
        return image

    def iterate(self):
        for index in range(len(self)):
            yield None if index in self._broken else self.read(index)


def moving(frames=12, broken=(), first=(30, 40, 24, 20)):
    boxes = np.tile(np.array(first, dtype=float), (frames, 1))
    boxes[:, 0] += np.arange(frames) * 3
    visible = np.ones(frames, dtype=bool)
    images = InMemoryFrames(np.nan_to_num(boxes, nan=1), broken)
    return VideoSequence(
        dataset="made", name="square", frames=images, boxes_xywh=boxes, visible=visible
    )


class Recorder:
    """A tracker that keeps what it was given."""

    exit_gmacs = (0.5, 0.6, 0.7)

    def __init__(self):
        self.starts, self.frames = [], 0

    def start(self, image, box_xywh):
        self.starts.append(np.array(box_xywh))

    def step(self, image):
        self.frames += 1
        box = np.array([self.frames, 0, 5, 5], dtype=float)
        return Step(box_xywh=box, predicted_iou=0.7, exit_index=self.frames % 3, network_ms=1.5)


def test_frame_one_is_given_and_every_other_frame_is_a_step():
    tracker = Recorder()
    result = run_sequence(tracker, moving())
    assert tracker.frames == 11
    assert result.boxes_xywh[0].tolist() == [30, 40, 24, 20]
    assert result.boxes_xywh[1:, 0].tolist() == list(range(1, 12))
    assert result.exit_indices.tolist() == [-1, *(k % 3 for k in range(1, 12))]
    assert np.isnan(result.scores[0])
    assert np.isnan(result.gmacs[0])
    assert result.gmacs[1:].tolist() == [(0.5, 0.6, 0.7)[k % 3] for k in range(1, 12)]
    assert (result.times_s > 0).all()
    assert (result.decode_s > 0).all()
    assert result.image_size == (160, 120)


def test_warm_up_restarts_the_tracker_and_leaves_no_trace():
    tracker = Recorder()
    result = run_sequence(tracker, moving(), warm_up=2)
    assert len(tracker.starts) == 3
    assert len(result) == 12


def test_a_frame_that_does_not_decode_keeps_the_box_before_and_is_listed():
    result = run_sequence(Recorder(), moving(broken=(4, 5)))
    assert result.undecoded == (4, 5)
    assert result.boxes_xywh[4].tolist() == result.boxes_xywh[3].tolist()
    assert result.exit_indices[4] == -1


def test_states_are_kept_where_they_are_asked_for():
    class Believing(Recorder):
        def step(self, image):
            return replace(super().step(image), state="lost" if self.frames > 2 else "tracking")

    plain = run_sequence(Believing(), moving(frames=6, broken=(4,)))
    asked = run_sequence(Believing(), moving(frames=6, broken=(4,)), keep_states=True)
    assert plain.states == ()
    assert asked.states == ("", "tracking", "tracking", "lost", "", "lost")
    assert np.array_equal(plain.boxes_xywh, asked.boxes_xywh)


def test_a_box_without_area_keeps_the_one_before_and_is_listed():
    class Failing(Recorder):
        def step(self, image):
            step = super().step(image)
            bad = {3: [np.nan, 0, 5, 5], 4: [1, 1, 0, 5], 5: [1, 1, 5, -2]}
            return Step(box_xywh=np.array(bad.get(self.frames, step.box_xywh), dtype=float))

    result = run_sequence(Failing(), moving())
    assert result.broken == (3, 4, 5)
    assert result.boxes_xywh[3:6].tolist() == [[2, 0, 5, 5]] * 3


def test_a_first_frame_that_does_not_decode_is_an_error_that_names_it():
    with pytest.raises(DataError, match=r"square: frame 1 \(frames/0000\.jpg\) does not decode"):
        run_sequence(Recorder(), moving(broken=(0,)))


@pytest.mark.parametrize("first", [(np.nan, 1, 2, 3), (5, 5, 0, 9)])
def test_a_first_box_that_cannot_start_a_tracker_is_an_error(first):
    with pytest.raises(DataError, match="square: the first box"):
        run_sequence(Recorder(), moving(first=first))


def test_a_static_box_never_moves():
    result = run_sequence(StaticBox(), moving())
    assert (result.boxes_xywh == result.boxes_xywh[0]).all()
    assert (result.gmacs[1:] == 0).all()


def test_opencvs_tracker_follows_a_square():
    result = run_sequence(make_third_party("cv2:MIL"), moving())
    assert abs(result.boxes_xywh[-1, 0] - 63) < 12


def test_opencvs_network_runs_from_its_files(shared):
    folder = shared / "peers" / "nanotrack"
    files = {
        "backbone": str(folder / "nanotrackv2_backbone_sim.onnx"),
        "neckhead": str(folder / "nanotrackv2_head_sim.onnx"),
    }
    result = run_sequence(make_third_party("cv2:Nano", files), moving())
    assert abs(result.boxes_xywh[-1, 0] - 63) < 15


def test_a_tracker_that_this_opencv_lacks_is_a_named_error():
    with pytest.raises(RuntimeMissingError, match="built without its contrib trackers"):
        make_third_party("cv2:CSRT")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cv2:Magic", {}, "cv2:Magic is unknown; there are cv2:MIL"),
        ("cv2:Nano", {}, "tracker option backbone: cv2:Nano needs the path"),
        ("cv2:Nano", {"backbone": "no.onnx"}, r"no\.onnx: no such file"),
        ("cv2:MIL", {"net": "x"}, "tracker option net: cv2:MIL takes no option"),
        ("csrt", {}, "must be static or cv2:NAME"),
    ],
)
def test_a_mistake_in_a_peer_is_refused(name, options, message):
    with pytest.raises(ConfigurationError, match=message):
        make_third_party(name, options)

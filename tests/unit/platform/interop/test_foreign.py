"""Other people's trackers, whatever their methods are called."""

import cv2
import numpy as np
import pytest

from dytrack_platform.datasets import readers
from dytrack_platform.errors import ConfigurationError, ResultError
from dytrack_platform.evaluation.tracking.protocol import run_sequence
from dytrack_platform.interop.foreign import adapt

IMAGE = np.zeros((20, 30, 3), np.uint8)
IMAGE[..., 0] = 200  # red
BOX = np.array([3.0, 4.0, 5.0, 6.0])


class Recorder:
    """Remembers what it was given."""

    answer: object = BOX

    def _first(self, image, box):
        self.red, self.box = int(image[0, 0, 0]), box

    def _next(self, image):
        self.red = int(image[0, 0, 0])
        return self.answer


class Got10k(Recorder):
    init, update = Recorder._first, Recorder._next


class Pytracking(Recorder):
    initialize, track = Recorder._first, Recorder._next


class Pysot(Recorder):
    init, track = Recorder._first, Recorder._next


@pytest.mark.parametrize("kind", [Got10k, Pytracking, Pysot])
def test_methods_are_found_by_their_names(kind):
    theirs = kind()
    ours = adapt(theirs)
    ours.start(IMAGE, BOX)
    assert theirs.box == ({"init_bbox": [3, 4, 5, 6]} if kind is Pytracking else [3, 4, 5, 6])
    assert ours.step(IMAGE).box_xywh.tolist() == [3, 4, 5, 6]
    assert theirs.red == 200


def test_a_tracker_for_opencvs_order_sees_blue_first():
    theirs = Got10k()
    adapt(theirs, channels="bgr").start(IMAGE, BOX)
    assert theirs.red == 0


@pytest.mark.parametrize(
    ("answer", "box", "score"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], float("nan")),
        ((True, (1, 2, 3, 4)), [1, 2, 3, 4], float("nan")),
        ({"bbox": [1, 2, 3, 4], "best_score": 0.5}, [1, 2, 3, 4], 0.5),
        ({"target_bbox": [1, 2, 3, 4]}, [1, 2, 3, 4], float("nan")),
        ((False, (0, 0, 0, 0)), [float("nan")] * 4, float("nan")),
    ],
)
def test_answers_of_every_kind_are_read(answer, box, score):
    theirs = Got10k()
    theirs.answer = answer
    found = adapt(theirs).step(IMAGE)
    np.testing.assert_array_equal(found.box_xywh, box)
    np.testing.assert_equal(found.predicted_iou, score)


@pytest.mark.parametrize("answer", [None, [1, 2, 3], {"mask": 1}, "lost"])
def test_an_answer_without_a_box_is_told(answer):
    theirs = Got10k()
    theirs.answer = answer
    with pytest.raises(ResultError, match="Got10k: a box of four numbers x, y, w, h was expected"):
        adapt(theirs).step(IMAGE)


def test_what_is_no_tracker_is_refused():
    with pytest.raises(ConfigurationError, match="object: has no init or initialize"):
        adapt(object())


def test_opencvs_own_tracker_is_evaluated(made):
    class Mil:
        def init(self, image, box):
            self._tracker = cv2.TrackerMIL.create()
            self._tracker.init(image, tuple(round(value) for value in box))

        def update(self, image):
            return self._tracker.update(image)

    sequence = next(readers.read("got10k", str(made), "test"))
    track = run_sequence(adapt(Mil(), channels="bgr"), sequence)
    assert len(track.boxes_xywh) == len(sequence)

"""Run one tracker in a process of its own, and speak JSON lines.

This file is a program that stands alone: it needs OpenCV and NumPy and nothing of dytrack, so that
another interpreter (one with OpenCV's contrib trackers) can run it::

    python runner.py '{"kind": "MIL", "files": {}, "threads": 1, "memory": 4294967296}'

It first says ``{"ready": "OpenCV 5.0.0"}``, or ``{"missing": "..."}`` where this OpenCV has no such
tracker, or ``{"error": "..."}``. Then each line that it reads asks for one sequence, with all paths
of the images or that of a video::

    {"images": ["1.jpg", "2.jpg"], "video": null, "frames": 2, "box": [10, 20, 30, 40]}

and it answers a line for each frame and one at the end::

    {"frame": 1, "box": [...], "score": 0.9, "lost": false, "exit": -1, "ms": 3.2, "decode_ms": 1.0}
    {"done": true}

The line of frame 0 has ``"size": [width, height]`` too. ``score`` and ``lost`` are null where a
tracker does not say. A frame that does not decode has the box null. Decoding, and the order of the
channels that a tracker wants, are outside its time.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Floats = NDArray[np.float64]


_WARM_UP = 3  # steps on the first frame before the clock first runs


class Found(NamedTuple):
    """What a tracker says about a frame."""

    box: list[float]
    """x, y, w, h in pixels."""
    score: float | None = None
    """How sure it is; None where it does not say."""
    lost: bool | None = None
    """Whether it calls the target lost; None where it knows no such thing."""
    exit: int = -1
    """The exit that gave the box, from 0; -1 where there are none."""


class Contender(Protocol):
    """A tracker as this program drives it."""

    def start(self, image: Pixels, box: list[float]) -> None:
        """Take the target from the first frame."""

    def step(self, image: Pixels) -> Found:
        """Find it in the next one."""


class Missing(Exception):
    """This interpreter's OpenCV has no such tracker."""


def limit_memory(most_bytes: int) -> None:
    """Limit the address space of this process; 0 leaves it alone, and so does a system without."""
    try:
        import resource
    except ImportError:
        return
    if most_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))


def own_output() -> IO[str]:
    """Keep standard output for answers: whatever else is printed goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def serve(
    make: Callable[[], tuple[Contender, str]], answers: IO[str], *, red_first: bool = False
) -> int:
    """Answer the requests of standard input until it ends.

    Args:
        make: Returns the tracker, and what runs it in words.
        answers: From :func:`own_output`.
        red_first: The tracker takes red first, not blue.

    Returns:
        The exit code of the process: 0, or 1 after an error, which was told.
    """
    try:
        tracker, about = make()
        _say(answers, {"ready": about})
        warm = False
        for line in sys.stdin:
            request = json.loads(line)
            _follow(tracker, request, answers, red_first=red_first, warm=warm)
            warm = True
    except Missing as error:
        _say(answers, {"missing": str(error)})
    except Exception as error:  # noqa: BLE001 - whatever a tracker throws goes into its row
        _say(answers, {"error": _in_one_line(error)})
        return 1
    return 0


def _follow(
    tracker: Contender,
    request: dict[str, Any],
    answers: IO[str],
    *,
    red_first: bool,
    warm: bool,
) -> None:
    """Track one sequence."""
    images = _frames(request, red_first)
    for frame in range(request["frames"]):
        began = time.perf_counter()
        image = next(images, None)
        decode_ms = (time.perf_counter() - began) * 1e3
        if image is None:
            if frame == 0:
                raise ValueError("the first frame does not decode")
            _say(answers, {"frame": frame, "box": None, "decode_ms": decode_ms})
            continue
        if frame == 0:
            for _ in range(0 if warm else _WARM_UP):
                tracker.start(image, request["box"])
                tracker.step(image)
        began = time.perf_counter()
        if frame == 0:
            tracker.start(image, request["box"])
            found = Found(list(request["box"]))
        else:
            found = tracker.step(image)
        ms = (time.perf_counter() - began) * 1e3
        line = {"frame": frame, **found._asdict(), "ms": ms, "decode_ms": decode_ms}
        if frame == 0:
            line["size"] = [image.shape[1], image.shape[0]]
        _say(answers, line)
    _say(answers, {"done": True})


def _frames(request: dict[str, Any], red_first: bool) -> Iterator[Pixels | None]:
    """Decode a sequence's frames; None stands for one that does not decode."""
    import cv2
    import numpy as np

    def ordered(image: Any) -> Pixels | None:  # noqa: ANN401 - what OpenCV gives
        if image is None:
            return None
        return np.ascontiguousarray(image[..., ::-1] if red_first else image, dtype=np.uint8)

    if request["video"] is None:
        for path in request["images"]:
            try:
                yield ordered(cv2.imread(path, cv2.IMREAD_COLOR))
            except cv2.error:  # a header that tells of a size which OpenCV does not allow
                yield None
        return
    capture = cv2.VideoCapture(request["video"], cv2.CAP_FFMPEG)
    for _ in range(request["frames"]):
        good, image = capture.read()
        yield ordered(image) if good else None
    capture.release()


def _say(answers: IO[str], line: dict[str, Any]) -> None:
    answers.write(json.dumps(line) + "\n")
    answers.flush()


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class OpenCVTracker:
    """One of OpenCV's own; where ``update`` finds nothing the last box stays."""

    def __init__(self, kind: str, files: dict[str, str]) -> None:
        self._create = _creator(kind, files)
        # Every tracker of OpenCV has the method, few mean something by it.
        self._scores = kind in ("Nano", "Vit")
        # MIL and Nano always say that they found something: that is no knowledge.
        self._says_lost = kind in ("Vit", "CSRT", "KCF")
        self._tracker: Any = None
        self._box: list[float] = []

    def start(self, image: Pixels, box: list[float]) -> None:
        """Take the target; OpenCV wants whole pixels inside the image."""
        height, width = image.shape[:2]
        x, y, w, h = (round(value) for value in box)
        x, y = min(max(x, 0), width - 2), min(max(y, 0), height - 2)
        w, h = min(max(w, 2), width - x), min(max(h, 2), height - y)
        self._tracker = self._create()  # one cannot be started twice
        self._tracker.init(image, (x, y, w, h))
        self._box = [float(value) for value in box]

    def step(self, image: Pixels) -> Found:
        """Find it in the next frame."""
        good, box = self._tracker.update(image)
        if good:
            self._box = [float(value) for value in box]
        score = None
        if self._scores:
            score = float(self._tracker.getTrackingScore())
        return Found(list(self._box), score, (not good) if self._says_lost else None)


def _creator(kind: str, files: dict[str, str]) -> Callable[[], Any]:
    import cv2

    create = getattr(cv2, f"Tracker{kind}_create", None)
    if create is None:
        raise Missing(f"Tracker{kind} in OpenCV {cv2.__version__} of {sys.executable}")
    if kind in ("MIL", "CSRT", "KCF"):
        return create  # type: ignore[no-any-return]
    parameters = getattr(cv2, f"Tracker{kind}_Params")()
    for name, path in files.items():
        setattr(parameters, name, path)
    if kind == "Vit":
        # Without a threshold its box can grow until there is no memory.
        parameters.tracking_score_threshold = 0.2
    return lambda: create(parameters)


class NanoTrack3:
    """NanoTrack v3 on ``cv2.dnn``: it has a map of 15 x 15, OpenCV's own loop expects 16 x 16.

    A Siamese tracker as SiamRPN (CVPR 2018) and its successors run it: around the target, with half
    of the summed sides as context, a square is cut and scaled to 127 pixels once and to 255 in each
    frame; every cell of the map gives a class score and its distances to the four sides of the box.
    Cells far from the last position, and boxes of another size or shape, are penalised.
    """

    _EXEMPLAR, _INSTANCE, _STRIDE = 127, 255, 16
    _PENALTY, _WINDOW, _RATE = 0.138, 0.455, 0.348

    def __init__(self, files: dict[str, str]) -> None:
        import cv2
        import numpy as np

        self._cv2, self._np = cv2, np
        # The exemplar has another shape: a network of its own spares the search one a new layout.
        self._exemplar = cv2.dnn.readNet(files["backbone"])
        self._backbone = cv2.dnn.readNet(files["backbone"])
        self._head = cv2.dnn.readNet(files["head"])
        self._template: Any = None
        self._mean: tuple[float, ...] = ()
        self._centre = self._size = np.zeros(2)

    def start(self, image: Pixels, box: list[float]) -> None:
        """Take the target."""
        self._size = self._np.array(box[2:], dtype=float)
        self._centre = self._np.array(box[:2], dtype=float) + self._size / 2
        self._mean = tuple(float(value) for value in image.mean(axis=(0, 1)))
        self._exemplar.setInput(self._crop(image, self._context(), self._EXEMPLAR))
        self._template = self._exemplar.forward()

    def step(self, image: Pixels) -> Found:
        """Find it in the next frame."""
        np = self._np
        context = self._context()
        scale = self._EXEMPLAR / context  # pixels of the crop for one of the frame
        self._backbone.setInput(self._crop(image, self._INSTANCE / scale, self._INSTANCE))
        self._head.setInput(self._template, "input1")
        self._head.setInput(self._backbone.forward(), "input2")
        classes, sides = self._head.forward(["output1", "output2"])
        score = 1 / (1 + np.exp(classes[0, 0] - classes[0, 1]))  # the softmax of two
        left, top, right, bottom = sides[0]
        cells = (np.arange(score.shape[0]) - score.shape[0] // 2) * self._STRIDE
        x, y = cells[None, :] + (right - left) / 2, cells[:, None] + (bottom - top) / 2
        width, height = np.maximum(left + right, 1e-3), np.maximum(top + bottom, 1e-3)
        # Prefer what has the size and the shape that the target had, near to where it was.
        old_w, old_h = (float(side) * scale for side in self._size)
        pad = (width + height) / 2
        side = np.sqrt((width + pad) * (height + pad))  # the old box's is that of the exemplar
        resized = _either_way(side / self._EXEMPLAR)
        reshaped = _either_way((old_w / old_h) / (width / height))
        penalty = np.exp(-(resized * reshaped - 1) * self._PENALTY)
        hann = np.hanning(score.shape[0])
        ranked = penalty * score * (1 - self._WINDOW) + np.outer(hann, hann) * self._WINDOW
        best = np.unravel_index(int(ranked.argmax()), ranked.shape)
        # Follow the position at once, and the size slowly.
        rate = float(penalty[best] * score[best]) * self._RATE
        found = np.array([width[best], height[best]]) / scale
        frame = np.array([image.shape[1], image.shape[0]], dtype=float)
        self._centre = np.clip(self._centre + np.array([x[best], y[best]]) / scale, 0, frame)
        self._size = np.clip(self._size * (1 - rate) + found * rate, np.minimum(10, frame), frame)
        corner = self._centre - self._size / 2
        return Found([float(value) for value in (*corner, *self._size)], float(score[best]))

    def _context(self) -> float:
        """Return the side of the square that the exemplar shows, in pixels of the frame."""
        width, height = float(self._size[0]), float(self._size[1])
        pad = (width + height) / 2
        return math.sqrt((width + pad) * (height + pad))

    def _crop(self, image: Pixels, side: float, pixels: int) -> Any:  # noqa: ANN401 - a blob
        """Cut a square around the target and scale it; outside is the first frame's mean colour."""
        scale = pixels / max(side, 1.0)
        shift = pixels / 2 - self._centre * scale
        # Centres of pixels, not their corners, are mapped onto each other.
        shift = shift + (scale - 1) / 2
        matrix = self._np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        crop = self._cv2.warpAffine(
            image,
            matrix,
            (pixels, pixels),
            flags=self._cv2.INTER_LINEAR,
            borderMode=self._cv2.BORDER_CONSTANT,
            borderValue=self._mean,
        )
        return self._cv2.dnn.blobFromImage(crop)


def _either_way(ratio: Floats) -> Floats:
    """Make a ratio above 1 whether something grew or shrank."""
    import numpy as np

    return np.asarray(np.maximum(ratio, 1 / ratio))


def _make(job: dict[str, Any]) -> tuple[Contender, str]:
    import cv2

    cv2.setNumThreads(job["threads"])
    about = f"OpenCV {cv2.__version__}"
    if job["kind"] == "Nano3":
        return NanoTrack3(job["files"]), about
    return OpenCVTracker(job["kind"], job["files"]), about


if __name__ == "__main__":
    _job = json.loads(sys.argv[1])
    limit_memory(_job["memory"])
    sys.exit(serve(lambda: _make(_job), own_output()))

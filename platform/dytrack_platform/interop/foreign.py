"""Judge trackers that speak another project's interface: one adapter for all of them.

Three interfaces are known, by the names of their methods:

=====================================  ==============================  ===========================
who                                    first frame                     the next ones
=====================================  ==============================  ===========================
got10k, OpenCV's Python trackers       ``init(image, box)``            ``update(image)``
pytracking and its descendants         ``initialize(image, info)``     ``track(image[, info])``
pysot                                  ``init(image, box)``            ``track(image)``
=====================================  ==============================  ===========================

Answers may be a box, ``(found, box)`` as OpenCV gives it, or a dictionary with ``target_bbox`` or
``bbox`` and a score. Example::

    from dytrack_platform.evaluation.tracking.protocol import run_sequence
    run_sequence(adapt(their_tracker, channels="bgr"), sequence)
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.datasets.sequence import Pixels
from dytrack_platform.errors import ConfigurationError, ResultError
from dytrack_platform.evaluation.tracking.protocol import Step

_SCORES = ("predicted_iou", "best_score", "max_score", "score")
"""Where trackers that answer with a dictionary keep their confidence."""


class ForeignTracker:
    """Another project's tracker as evaluation's protocol wants one.

    Args:
        tracker: The tracker; it has one of the module's pairs of methods.
        channels: What it expects first in an image: ``rgb``, or ``bgr`` as OpenCV reads it.

    Raises:
        ConfigurationError: It has none of these pairs of methods.
    """

    exit_gmacs = (float("nan"),)

    def __init__(self, tracker: object, channels: Literal["rgb", "bgr"] = "rgb") -> None:
        self._begin = getattr(tracker, "initialize", None)
        self._takes_info = self._begin is not None
        self._begin = self._begin or getattr(tracker, "init", None)
        self._next = getattr(tracker, "update", None) or getattr(tracker, "track", None)
        if not callable(self._begin) or not callable(self._next):
            raise ConfigurationError(
                f"{type(tracker).__name__}: has no init or initialize with update or track; wrap "
                "it in a class with start(image, box) and step(image)"
            )
        self._name, self._bgr = type(tracker).__name__, channels == "bgr"

    def start(self, image: Pixels, box_xywh: NDArray[np.float64], /) -> None:
        """Take the target from the first frame, (H, W, 3) uint8, red first."""
        assert callable(self._begin)  # checked when it was made
        box = [float(value) for value in box_xywh]
        self._begin(self._shown(image), {"init_bbox": box} if self._takes_info else box)

    def step(self, image: Pixels, /) -> Step:
        """Find the target in the next frame, (H, W, 3) uint8, red first.

        Raises:
            ResultError: The answer holds no box of four numbers.
        """
        assert callable(self._next)  # checked when it was made
        answer: Any = self._next(self._shown(image))
        score = float("nan")
        if isinstance(answer, Mapping):
            score = next((float(answer[k]) for k in _SCORES if k in answer), score)
            answer = answer.get("target_bbox", answer.get("bbox"))
        elif isinstance(answer, tuple) and len(answer) == 2 and np.ndim(answer[0]) == 0:
            found, answer = answer
            answer = answer if found else (float("nan"),) * 4
        try:
            box = np.asarray(answer, np.float64).reshape(4)
        except (TypeError, ValueError) as error:
            raise ResultError(
                f"{self._name}: a box of four numbers x, y, w, h was expected, got {answer!r:.80}"
            ) from error
        return Step(box_xywh=box, predicted_iou=score)

    def _shown(self, image: Pixels) -> Pixels:
        """Return the image in the order of channels that the tracker expects."""
        return np.ascontiguousarray(image[..., ::-1]) if self._bgr else image


def adapt(tracker: object, channels: Literal["rgb", "bgr"] = "rgb") -> ForeignTracker:
    """Return ``tracker`` as evaluation's protocol wants it; see :class:`ForeignTracker`."""
    return ForeignTracker(tracker, channels)

"""One-pass evaluation: a tracker is started on the first frame and never helped again."""

import time
from collections.abc import Sequence as List
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.datasets.sequence import Pixels, VideoSequence
from dytrack_platform.errors import BoxError, DataError, ImageError

UNFIT = (DataError, ImageError, BoxError)
"""What is wrong with a sequence, and not with the tracker."""


class Prediction(Protocol):
    """Where a tracker found the target in one frame; ``dytrack_model.Prediction`` is one."""

    @property
    def box_xywh(self) -> NDArray[np.float64]:
        """(4,) pixels of the frame."""
        ...

    @property
    def predicted_iou(self) -> float:
        """Predicted IoU in [0, 1]; NaN where the tracker does not say."""
        ...

    @property
    def exit_index(self) -> int:
        """The exit that gave the box, from 0; -1 where there are none."""
        ...

    @property
    def network_ms(self) -> float:
        """Milliseconds in the network alone; NaN where unknown."""
        ...

    @property
    def extra_gmacs(self) -> float:
        """What this frame cost beyond its exit's ``exit_gmacs``."""
        ...

    @property
    def state(self) -> str:
        """What the tracker believes of its target, such as lost; empty where it does not say."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """The prediction of a tracker that has no exits."""

    box_xywh: NDArray[np.float64]
    """(4,) pixels of the frame."""
    predicted_iou: float = float("nan")
    """Predicted IoU in [0, 1]; NaN where the tracker does not say."""
    exit_index: int = -1
    """There is no exit."""
    network_ms: float = float("nan")
    """Milliseconds in the network alone; NaN where unknown."""
    extra_gmacs: float = 0.0
    """Every frame costs the same."""
    state: str = ""
    """It believes nothing of its target."""


class Tracker(Protocol):
    """Anything that can be judged; ``dytrack_model.Tracker`` is one."""

    @property
    def exit_gmacs(self) -> List[float]:
        """Billions of multiply-accumulates of a frame that stops at each exit, NaN where unknown.

        A tracker without exits has one value.
        """
        ...

    def start(self, image: Pixels, box_xywh: NDArray[np.float64], /) -> None:
        """Take the target from the first frame, (H, W, 3) uint8, red first."""
        ...

    def step(self, image: Pixels, /) -> Prediction:
        """Find the target in the next frame."""
        ...


class StaticBox:
    """Baseline: a box that never moves."""

    exit_gmacs = (0.0,)

    def __init__(self) -> None:
        self._box = np.zeros(4)

    def start(self, image: Pixels, box_xywh: NDArray[np.float64]) -> None:
        """Remember the box."""
        self._box = np.array(box_xywh, dtype=np.float64)

    def step(self, image: Pixels) -> Step:
        """Return the first box again."""
        return Step(box_xywh=self._box.copy())


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceResult:
    """What a tracker did on one sequence of N frames; frame 0 is the given box."""

    name: str
    boxes_xywh: NDArray[np.float64]
    """(N, 4) pixels."""
    times_s: NDArray[np.float64]
    """(N,) seconds in ``start`` (frame 0) and ``step``; decoding is not in it."""
    decode_s: NDArray[np.float64]
    """(N,) seconds spent reading and decoding."""
    network_ms: NDArray[np.float64]
    """(N,) milliseconds in the network; NaN where unknown."""
    exit_indices: NDArray[np.int64]
    """(N,) index of the exit, -1 where there is none (frame 0 included)."""
    scores: NDArray[np.float64]
    """(N,) predicted IoU; NaN where unknown."""
    gmacs: NDArray[np.float64]
    """(N,) billions of multiply-accumulates; NaN where unknown."""
    image_size: tuple[int, int]
    """Width and height of the first frame in pixels."""
    undecoded: tuple[int, ...] = ()
    """Frames that did not decode; they repeat the box before."""
    broken: tuple[int, ...] = ()
    """Frames for which the tracker gave NaN or no area; they repeat the box before too."""
    states: tuple[str, ...] = ()
    """(N,) what the tracker believed of its target, empty for frame 0 and frames that did not
    decode; nothing at all where nobody asked."""

    def __len__(self) -> int:
        return len(self.boxes_xywh)


def run_sequence(
    tracker: Tracker, sequence: VideoSequence, *, warm_up: int = 0, keep_states: bool = False
) -> SequenceResult:
    """Track one sequence from its first box to its last annotated frame.

    A frame that does not decode keeps the box before it and is listed: a tracker in the field
    would miss that frame too.

    Args:
        tracker: What to judge.
        sequence: Frames and boxes.
        warm_up: Steps taken on the first frame before the clock runs, so that compilation and
            first allocations are not charged to it; the tracker is started anew afterwards.
        keep_states: Keep what the tracker believed of its target.

    Raises:
        DataError: The first frame does not decode, or its box cannot start a tracker.
    """
    first = _first_box(sequence)
    frames = len(sequence)
    boxes = np.tile(first, (frames, 1))
    times, decode, network = np.zeros(frames), np.zeros(frames), np.full(frames, np.nan)
    exit_indices = np.full(frames, -1, dtype=np.int64)
    scores, gmacs = np.full(frames, np.nan), np.full(frames, np.nan)
    undecoded, broken = [], []
    states = [""] * frames if keep_states else []
    images = sequence.frames.iterate()
    for frame in range(frames):
        began = time.perf_counter()
        image = next(images, None)
        decoded = time.perf_counter()
        decode[frame] = decoded - began
        if image is None:
            if frame == 0:
                raise DataError(
                    f"{sequence.name}: frame 1 ({sequence.frames.path(0)}) does not decode, so "
                    "no tracker can be started; mend the file or leave the sequence out"
                )
            undecoded.append(frame)
            boxes[frame] = boxes[frame - 1]
            continue
        if frame == 0:
            image_size = (image.shape[1], image.shape[0])
            for _ in range(warm_up):
                tracker.start(image, first)
                tracker.step(image)
            decoded = time.perf_counter()
            tracker.start(image, first)
            times[frame] = time.perf_counter() - decoded
            continue
        step = tracker.step(image)
        times[frame] = time.perf_counter() - decoded
        # The clock has stopped: keeping the result is not the tracker's time.
        boxes[frame], scores[frame] = step.box_xywh, step.predicted_iou
        exit_indices[frame] = step.exit_index
        if not _has_area(boxes[frame]):
            broken.append(frame)
            boxes[frame] = boxes[frame - 1]
        # Without exits the index is -1, which is the one value that there is.
        gmacs[frame] = tracker.exit_gmacs[step.exit_index] + step.extra_gmacs
        network[frame] = step.network_ms
        if keep_states:
            states[frame] = str(step.state)
    return SequenceResult(
        name=sequence.name,
        boxes_xywh=boxes,
        times_s=times,
        decode_s=decode,
        network_ms=network,
        exit_indices=exit_indices,
        scores=scores,
        gmacs=gmacs,
        image_size=image_size,
        undecoded=tuple(undecoded),
        broken=tuple(broken),
        states=tuple(states),
    )


def _first_box(sequence: VideoSequence) -> NDArray[np.float64]:
    if len(sequence) == 0:
        raise DataError(f"{sequence.name}: the sequence has no annotated frame")
    first = np.asarray(sequence.boxes_xywh[0], dtype=np.float64)
    if not _has_area(first):
        shown = ", ".join(f"{value:g}" for value in first)
        raise DataError(
            f"{sequence.name}: the first box ({shown}) has NaN or no area, so no tracker can be "
            "started; mend the annotation or leave the sequence out"
        )
    return first


def _has_area(box_xywh: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(box_xywh).all() and box_xywh[2] > 0 and box_xywh[3] > 0)

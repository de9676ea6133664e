"""Follow one target through a video: ``start(frame, box)``, then ``step(frame)`` for each frame."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dytrack_model.ambiguity import motion
from dytrack_model.correction import BoxCorrection, agreement
from dytrack_model.cost import planned_extra_gmacs, planned_gmacs
from dytrack_model.crops import box_to_crop, centre, check_box, clip_box, crop, crop_side
from dytrack_model.errors import ImageError
from dytrack_model.images import RGB, Channels, Frame, as_rgb, read_frames
from dytrack_model.narrow import Pace
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import FULL, Policy, find_point
from dytrack_model.prediction import Audit, Prediction
from dytrack_model.runtime import open_tracker
from dytrack_model.runtime.engine import (
    Engine,
    Inference,
    Precision,
    Tensors,
    Work,
    finish,
    inferring,
    locate,
    locating,
    stage,
)
from dytrack_model.runtime.torch_engine import as_engine
from dytrack_model.seeking import Belief, Search, Seeker, regions
from dytrack_model.target_state import STATES, StateConfig, TargetState

Box = Sequence[float] | NDArray[np.float64]


class Tracker:
    """The online tracker. One object follows one target; :meth:`load` opens a saved one.

    Args:
        network: The network, which then runs in PyTorch, or an engine of any runtime. A network
            is not changed: neither its mode nor its device.
        policy: When to stop; full depth by default.
        device: Where a network runs; an engine knows its own.
        hann: Strength of the Hann window on the score map in [0, 1]; 1 multiplies the scores
            by the window (OSTrack), 0 leaves them alone.
        lost_below: Predicted IoU under which a frame is called lost where there are no states.
        correct: Correct the boxes of shallow exits by what the deepest one last said; see
            :mod:`~dytrack_model.correction`. Does nothing where all frames take the same exit.
        states: When to doubt, to lose and to find the target; see
            :mod:`~dytrack_model.target_state`. None: every frame is taken as it is found.
    """

    def __init__(
        self,
        network: DyTrackNetwork | Engine,
        policy: Policy | None = None,
        *,
        device: str | torch.device = "cpu",
        hann: float = 1.0,
        lost_below: float = 0.2,
        correct: bool = True,
        states: StateConfig | None = STATES,
    ) -> None:
        self.engine: Engine = as_engine(network, device)
        self.policy = policy or find_point((), FULL, self.engine.exit_count).policy()
        self._lost_below = lost_below
        self._correct = correct and self.engine.exit_count > 1
        self._correction = BoxCorrection(self.engine.exit_count)
        self._regions = regions(self.engine.config, hann, narrow=self.policy.narrow)
        self.pace = Pace()
        self._states = states
        self._belief: Belief | None = None
        self._template_state: Tensors | None = None
        self._seeker: Seeker | None = None
        self._channels: Channels = "rgb"
        self._first: str | Path | None = None
        self._left: tuple[Search, Inference] | None = None
        self._box_xywh = np.zeros(4)
        self._frame_size = (0, 0)

    @classmethod
    def load(
        cls,
        where: str | Path,
        point: str = "balanced",
        runtime: str | None = None,
        precision: Precision = "auto",
        device: str | torch.device = "cpu",
        *,
        threads: int = 0,
        states: StateConfig | None = STATES,
    ) -> "Tracker":
        """Open a saved tracker at one of its operating points.

        Args:
            where: A tracker's folder, the folder of the run that made one, or an export's.
            point: Name of a stored operating point, ``full`` for full depth, or thresholds such as
                ``0.6,0.8``.
            runtime: torch, compile, onnx or openvino; None takes an export's own, torch otherwise.
            precision: fp32, bf16, int8 (openvino), or auto for what the runtime does by itself.
            device: Where PyTorch runs; the other runtimes run on the CPU.
            threads: Threads of a graph on onnx and openvino; 0 leaves it to them.
            states: As for the tracker itself.

        Raises:
            CheckpointError: There is no tracker, or a damaged one.
            ConfigurationError: There is no such point; runtime, precision and device do not go
                together; or it is a name of the registry, which the platform reads.
            RuntimeMissingError: The runtime is not installed.
        """
        opened = open_tracker(where, runtime, precision, device, threads=threads)
        chosen = find_point(opened.points, point, opened.engine.exit_count)
        return cls(opened.engine, chosen.policy(), states=states)

    @property
    def box_xywh(self) -> NDArray[np.float64]:
        """(4,) the last box in pixels."""
        return self._box_xywh.copy()

    @property
    def exit_gmacs(self) -> tuple[float, ...]:
        """What a frame costs that stops at each exit; see :mod:`~dytrack_model.cost`."""
        return planned_gmacs(self.engine.config)

    def start(self, frame: Frame, box_xywh: Box, channels: Channels = "rgb") -> None:
        """Take the target from the first frame.

        Args:
            frame: The frame: an array (H, W, 3) uint8, an :class:`RGB`, or the path of an image.
            box_xywh: The target's box in pixels.
            channels: Which channel of an array comes first, in this frame and all that follow:
                ``rgb``, or ``bgr`` as OpenCV reads it.

        Raises:
            ImageError: The frame is no image, or the file does not decode.
            BoxError: The box has NaN, no area, or lies outside the image.
        """
        finish(self.engine, self.starting(frame, box_xywh, channels))
        # Else the next step is charged with what is still under way.
        self.engine.wait()

    def starting(self, frame: Frame, box_xywh: Box, channels: Channels = "rgb") -> Work[None]:
        """As :meth:`start`, call by call, for who runs many trackers' calls as one batch."""
        image = as_rgb(frame, channels)
        box = check_box(box_xywh, image.size)
        config = self.engine.config
        side = crop_side(box, config.template_factor)
        template = crop(image.pixels, centre(box), side, config.template_size)
        inside = box_to_crop(box, centre(box), side)
        self._template_state = yield from self.engine.embedding(template[None], inside[None])
        self._seeker = Seeker(self.engine, template, inside)
        self._channels = channels
        self._first = frame if isinstance(frame, str | Path) else None
        self._frame_size = image.size
        self._left = None
        self._begin_at(box)
        self._correction = BoxCorrection(self.engine.exit_count)
        self.policy.begin_target()

    def move_to(self, box_xywh: Box, size: tuple[int, int] | None = None) -> None:
        """Say where the target is now, as a detector might; the template stays.

        Args:
            box_xywh: The target's box in pixels; the next search region is cut around it.
            size: Width and height of the frames that follow, where it was started on a cut-out.

        Raises:
            ImageError: ``start`` was not called.
            BoxError: The box has NaN, no area, or lies outside the image.
        """
        if self._template_state is None:
            raise ImageError("move_to() needs a target: call start(frame, box) first")
        box = check_box(box_xywh, size or self._frame_size)
        self._frame_size = size or self._frame_size
        self._begin_at(box)

    def _begin_at(self, box: NDArray[np.float64]) -> None:
        """Take a box as certain."""
        self._box_xywh = box
        self.pace = Pace()
        self._belief = Belief(self._states, box, self._frame_size) if self._states else None

    def step(self, frame: Frame) -> Prediction:
        """Find the target in the next frame.

        Args:
            frame: As for :meth:`start`; the channels of an array are in the same order.

        Raises:
            ImageError: ``start`` was not called, or the frame is no image.
        """
        return finish(self.engine, self.stepping(frame))

    def stepping(self, frame: Frame) -> Work[Prediction]:
        """As :meth:`step`, call by call; ``network_ms`` then counts what it had to wait for."""
        self._left = None
        state = self._belief.state if self._belief else TargetState.TRACKING
        image = self._image(frame)
        if self._belief and state is TargetState.LOST:
            return (yield from self._look_around(image, self._belief))
        narrow = self.policy.narrow and state is TargetState.TRACKING and self.pace.slow
        search = self._search(image, narrow)
        began = time.perf_counter()
        found = yield from inferring(
            self.engine,
            self.policy,
            *(search.pixels[None], search.template_state, search.region.window),
            deep=state is not TargetState.TRACKING,
            correction=self._correction,
        )
        shallow = yield from self._shallower(found, search.region.window)
        network_ms = (time.perf_counter() - began) * 1e3
        # Map the box back into the frame; depth corrects shallow boxes, now or later.
        box, said, left = found.box_cxcywh, found.predicted_iou, found.exit_index
        prediction = self._predict(search, box, said, left, network_ms)
        looked = search.region.config
        heads = len(shallow or found.passed)  # besides the one that gave the box
        extra = planned_extra_gmacs(self.engine.config, looked, left, heads)
        prediction = replace(prediction, narrow=narrow, extra_gmacs=extra)
        self.pace.moved(motion(box, looked.search_factor)[0])
        if shallow:
            self._learn(search, shallow, found)
        if self._belief is not None:
            given = self._belief.follow(prediction.box_xywh, said, self._box_xywh)
            prediction = replace(prediction, box_xywh=given, state=self._belief.state)
        if prediction.lost:  # without states nothing else looks further
            self.pace.rush()
        self._box_xywh = prediction.box_xywh.copy()
        if left < self.engine.exit_count - 1:
            self._left = (search, found)
        return prediction

    def auditing(self) -> Work[Audit | None]:
        """Run the last frame on to full depth, call by call, and compare; nothing is learned.

        Its answer is long given by then. Where a runtime overwrites what it gave it is run before
        the next frame. None where the frame ran to full depth.
        """
        left, last, self._left = self._left, self.engine.exit_count - 1, None
        if left is None:
            return None
        search, found = left
        for exit_index in range(found.exit_index + 1, last + 1):
            yield stage(exit_index, found.tensors)
        (deep,) = yield from locating(self.engine, last, found.tensors, search.region.window)
        boxes = np.stack([search.in_frame(box) for box in (found.box_cxcywh, deep)])
        return Audit(
            exit_index=found.exit_index,
            predicted_iou=found.predicted_iou,
            predicted_iou_deep=float(self.engine.decide(last, found.tensors)[0]),
            agreement=float(agreement(boxes[:, None])[0, 0]),
        )

    def _look_around(self, image: RGB, belief: Belief) -> Work[Prediction]:
        """Look for a lost target, at full depth."""
        assert self._seeker is not None  # a target was lost, so one was started
        self.policy.begin_frame()
        plan, centred = belief.plan(self.engine.config.search_factor)
        began = time.perf_counter()
        box, said = yield from self._seeker.searching(
            image.pixels, plan, self._regions[0].window if centred else None
        )
        network_ms = (time.perf_counter() - began) * 1e3
        self._box_xywh = belief.weigh(box, said, self._box_xywh)
        self.pace.rush()
        last = self.engine.exit_count - 1
        return Prediction(
            box_xywh=self._box_xywh.copy(),
            predicted_iou=said,
            exit=self.engine.config.exits[last],
            exit_index=last,
            state=belief.state,
            network_ms=network_ms,
            extra_gmacs=(len(plan.centres) - 1) * self.exit_gmacs[last],
        )

    def step_all(self, frame: Frame) -> tuple[Prediction, ...]:
        """Find the target at every exit, shallow to deep, and follow the deepest; no policy.

        For choosing thresholds and for baselines; errors as :meth:`step`. Each exit's time is
        that of its whole route.
        """
        search = self._search(self._image(frame), narrow=False)
        tensors = self.engine.begin(search.pixels[None], search.template_state)
        predictions = []
        network_ms = 0.0
        for exit_index in range(self.engine.exit_count):
            began = time.perf_counter()
            self.engine.advance(exit_index, tensors)
            predicted_iou = float(self.engine.decide(exit_index, tensors)[0])
            network_ms += (time.perf_counter() - began) * 1e3
            began = time.perf_counter()
            box_cxcywh = locate(self.engine, exit_index, tensors, self._regions[0].window)
            head_ms = (time.perf_counter() - began) * 1e3
            ms = network_ms + head_ms
            predictions.append(
                self._predict(search, box_cxcywh, predicted_iou, exit_index, ms, corrected=False)
            )
        self._box_xywh = predictions[-1].box_xywh.copy()
        return tuple(predictions)

    def track(
        self, video: str | Path | Iterable[Frame], box_xywh: Box, channels: Channels = "rgb"
    ) -> Iterator[Prediction]:
        """Follow a target through a whole video.

        Args:
            video: A video file, a folder of images, or frames.
            box_xywh: The target's box in the first frame, in pixels.
            channels: Order of the channels where frames are arrays.

        Yields:
            One prediction for each frame after the first, whose box was given.

        Raises:
            ImageError: The video holds no frame, a damaged one, or fewer than it announces.
            BoxError: The box has NaN, no area, or lies outside the first frame.
        """
        frames = read_frames(video, channels)
        first = next(frames, None)
        if first is None:
            raise ImageError("track() needs at least one frame, got none")
        self.start(first, box_xywh)
        for frame in frames:
            yield self.step(frame)

    def _image(self, frame: Frame) -> RGB:
        """Read a frame of the started sequence."""
        image = as_rgb(frame, self._channels, self._first)
        if self._template_state is None:
            raise ImageError("step() needs a target: call start(frame, box) with the first frame")
        if image.size != self._frame_size:
            # Some sequences change (GOT-10k has two): go on in the new frame, as toolkits do.
            self._frame_size = image.size
            self._box_xywh = clip_box(self._box_xywh, *image.size)
            self.pace.rush()
            if self._belief is not None:
                self._belief.resize(image.size)
        return image

    def _search(self, image: RGB, narrow: bool) -> Search:
        """Cut the search region around the last box, or its middle alone."""
        assert self._template_state is not None  # _image refuses frames before a start
        region = self._regions[narrow]
        return Search.cut(image.pixels, self._box_xywh, region, self._template_state)

    def _shallower(self, found: Inference, window: Tensor) -> Work[list[list[float]]]:
        """Run shallower exits' heads for boxes in the crop; none where nothing is learned."""
        last = self.engine.exit_count - 1
        learns = self._correct and (self.policy.varies or found.overruled)
        if found.exit_index < last or not (learns or self.policy.learns_from_depth):
            return []
        boxes = [*found.passed]
        for k in range(len(boxes), last):
            boxes += yield from locating(self.engine, k, found.tensors, window)
        return boxes

    def _learn(self, search: Search, shallow: list[list[float]], found: Inference) -> None:
        """Learn from all exits' boxes in a frame at full depth."""
        boxes = [*shallow, found.box_cxcywh]
        raw = np.stack([search.in_frame(box) for box in boxes])
        if self.policy.learns_from_depth:
            ours = self._correction.apply(raw[:, None])[:, 0]  # as they are, where none is learned
            clipped = np.stack([clip_box(box, *self._frame_size) for box in ours])
            said = [float(self.engine.decide(k, found.tensors)[0]) for k in range(len(shallow))]
            agreed = agreement(clipped[:, None])[:, 0]
            self.policy.full_depth([*said, found.predicted_iou], agreed.tolist())
        if self._correct:
            self._correction.learn(raw[:, None])

    def _predict(
        self,
        search: Search,
        box_cxcywh: Sequence[float],
        predicted_iou: float,
        exit_index: int,
        network_ms: float,
        *,
        corrected: bool = True,
    ) -> Prediction:
        """Map a box back into the frame, corrected."""
        box = search.in_frame(box_cxcywh)
        if corrected and self._correction.shifts.any():
            box = self._correction.apply(np.tile(box, (exit_index + 1, 1, 1)))[exit_index, 0]
        return Prediction(
            box_xywh=clip_box(box, *self._frame_size),
            predicted_iou=predicted_iou,
            exit=self.engine.config.exits[exit_index],
            exit_index=exit_index,
            state=TargetState.LOST if predicted_iou < self._lost_below else TargetState.TRACKING,
            network_ms=network_ms,
        )

"""What runs on a worker of an evaluation: one tracker at one point, on one sequence at a time."""

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
import ray
from numpy.typing import NDArray

from dytrack_model import online
from dytrack_model.checkpoint import SavedTracker
from dytrack_model.cost import exit_gmacs
from dytrack_model.images import RGB
from dytrack_model.policy import CycleExit, FixedExit, OperatingPoint, Policy, RandomExit
from dytrack_model.runtime import build
from dytrack_model.runtime.engine import Engine, Precision
from dytrack_platform.datasets.sequence import Pixels, Sequence
from dytrack_platform.errors import DyTrackError
from dytrack_platform.evaluation import peers, protocol
from dytrack_platform.experiment.entries import Entry

_WARM_UP = 3  # steps before a worker's first clock runs


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """What runs our tracker's network."""

    runtime: str = "torch"
    """torch, compile, onnx or openvino."""
    precision: Precision = "auto"
    """fp32, bf16, or auto: the runtime's own choice."""
    device: str = "cpu"
    """Where PyTorch runs: cpu or cuda."""
    threads: int = 1
    """Threads of each worker."""

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision} {self.device}"

    def build(self, saved: SavedTracker) -> Engine:
        """Put a tracker's network on it.

        Raises:
            ConfigurationError: Runtime, precision and device do not go together.
            RuntimeMissingError: The runtime is not installed.
        """
        return build(saved.network, self.runtime, self.precision, self.device, self.threads)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What came of one sequence."""

    entry: str
    sequence: str
    result: protocol.SequenceResult | None
    """None where the sequence could not be tracked."""
    problem: str = ""
    """Why not."""


class OnlineTracker:
    """Our tracker behind the interface that evaluation judges.

    Args:
        saved: The tracker.
        policy: When it stops.
        engine: The runtime that holds its network.
    """

    def __init__(self, saved: SavedTracker, policy: Policy, engine: Engine) -> None:
        self._tracker = online.Tracker(engine, policy)
        self._gmacs = exit_gmacs(saved.network)

    def start(self, image: Pixels, box_xywh: NDArray[np.float64]) -> None:
        """Take the target from the first frame."""
        self._tracker.start(RGB(image), box_xywh.tolist())

    def step(self, image: Pixels) -> protocol.Step:
        """Find the target in the next frame."""
        track = self._tracker.step(RGB(image))
        return protocol.Step(
            box_xywh=track.box_xywh,
            score=track.predicted_iou,
            exit=track.exit,
            lost=track.lost,
            gmacs=self._gmacs[track.exit],
            network_ms=track.network_ms,
        )


def make_policy(entry: Entry, seed: int) -> Policy:
    """Build a fresh policy, so that one sequence leaves no trace in the next.

    Args:
        entry: A point of our tracker.
        seed: For random exits.
    """
    if entry.rule == "fixed":
        return FixedExit(int(entry.values[0]))
    if entry.rule == "random":
        return RandomExit(entry.values, seed=seed)
    if entry.rule == "cycle":
        return CycleExit([int(value) for value in entry.values])
    point = OperatingPoint(name=entry.name, thresholds=entry.values, hysteresis=entry.hysteresis)
    return point.policy()


def make_tracker(
    entry: Entry, saved: SavedTracker | None, engine: Engine | None, sequence: str
) -> protocol.Tracker:
    """Make the tracker of an entry for one sequence.

    The seed of random exits is the sequence's name, so a result does not depend on the worker.

    Raises:
        ConfigurationError: A peer is unknown, or its options are wrong.
        RuntimeMissingError: The installed OpenCV lacks the peer.
    """
    if entry.rule == "peer":
        return peers.make_peer(entry.peer, dict(entry.options))
    # evaluate() refuses an entry of ours without a model
    assert saved is not None
    assert engine is not None
    seed = int.from_bytes(hashlib.sha256(sequence.encode()).digest()[:4], "big")
    return OnlineTracker(saved, make_policy(entry, seed), engine)


@ray.remote
class Judge:
    """A worker: holds the network on its runtime, tracks whole sequences."""

    def __init__(self, saved: SavedTracker | None, running: Running) -> None:
        import torch

        torch.set_num_threads(running.threads)
        cv2.setNumThreads(running.threads)
        self._saved = saved
        self._engine = None if saved is None else running.build(saved)
        self._warm: set[str] = set()

    def judge(self, entry: Entry, sequence: Sequence) -> Verdict:
        """Track one sequence; what its data did wrong comes back as the verdict's problem."""
        tracker = make_tracker(entry, self._saved, self._engine, sequence.name)
        warm_up = 0 if entry.name in self._warm else _WARM_UP
        self._warm.add(entry.name)
        try:
            result = protocol.run_sequence(tracker, sequence, warm_up=warm_up)
        except DyTrackError as error:
            return Verdict(
                entry=entry.name, sequence=sequence.name, result=None, problem=str(error)
            )
        return Verdict(entry=entry.name, sequence=sequence.name, result=result)

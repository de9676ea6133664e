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
from dytrack_model.policy import (
    CycleExit,
    FixedExit,
    Policy,
    RandomExit,
    Thresholds,
)
from dytrack_platform.datasets.sequence import Pixels, Sequence
from dytrack_platform.errors import DyTrackError
from dytrack_platform.evaluation import peers, protocol
from dytrack_platform.experiment.entries import Entry

_WARM_UP = 3  # steps before a worker's first clock runs


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
    """Our tracker behind the interface that evaluation judges."""

    def __init__(self, saved: SavedTracker, policy: Policy, device: str) -> None:
        self._tracker = online.Tracker(saved.network, policy, device=device)
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
    return Thresholds(entry.values)


def make_tracker(
    entry: Entry, saved: SavedTracker | None, sequence: str, device: str = "cpu"
) -> protocol.Tracker:
    """Make the tracker of an entry for one sequence.

    The seed of random exits is the sequence's name, so a result does not depend on the worker.

    Raises:
        ConfigurationError: A peer is unknown, or its options are wrong.
        RuntimeMissingError: The installed OpenCV lacks the peer.
    """
    if entry.rule == "peer":
        return peers.make_peer(entry.peer, dict(entry.options))
    assert saved is not None  # evaluate() refuses an entry of ours without a model
    seed = int.from_bytes(hashlib.sha256(sequence.encode()).digest()[:4], "big")
    return OnlineTracker(saved, make_policy(entry, seed), device)


@ray.remote
class Judge:
    """A worker: holds the weights, tracks whole sequences with one thread."""

    def __init__(self, saved: SavedTracker | None, threads: int, device: str) -> None:
        import torch

        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        self._saved = saved
        self._device = device
        self._warm: set[str] = set()

    def judge(self, entry: Entry, sequence: Sequence) -> Verdict:
        """Track one sequence; what its data did wrong comes back as the verdict's problem."""
        tracker = make_tracker(entry, self._saved, sequence.name, self._device)
        warm_up = 0 if entry.name in self._warm else _WARM_UP
        self._warm.add(entry.name)
        try:
            result = protocol.run_sequence(tracker, sequence, warm_up=warm_up)
        except DyTrackError as error:
            return Verdict(
                entry=entry.name, sequence=sequence.name, result=None, problem=str(error)
            )
        return Verdict(entry=entry.name, sequence=sequence.name, result=result)

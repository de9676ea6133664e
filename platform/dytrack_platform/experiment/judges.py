"""What runs on a worker of an evaluation: one tracker at one point, on one sequence at a time."""

import hashlib
from dataclasses import dataclass

import cv2
import ray

from dytrack_model import Tracker
from dytrack_model.checkpoint import SavedTracker
from dytrack_model.runtime import build
from dytrack_model.runtime.engine import Engine
from dytrack_platform.datasets.sequence import Sequence
from dytrack_platform.errors import DyTrackError
from dytrack_platform.evaluation import peers, protocol
from dytrack_platform.experiment.entries import Entry
from dytrack_platform.experiment.running import Running, make_policy

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


def make_tracker(entry: Entry, engine: Engine | None, sequence: str) -> protocol.Tracker:
    """Make the tracker of an entry for one sequence.

    The seed of random exits is the sequence's name, so a result does not depend on the worker.

    Raises:
        ConfigurationError: A peer is unknown, or its options are wrong.
        RuntimeMissingError: The installed OpenCV lacks the peer.
    """
    if entry.rule == "peer":
        return peers.make_peer(entry.peer, dict(entry.options))
    # evaluate() refuses an entry of ours without a model
    assert engine is not None
    seed = int.from_bytes(hashlib.sha256(sequence.encode()).digest()[:4], "big")
    return Tracker(engine, make_policy(entry, seed))


@ray.remote
class Judge:
    """A worker: holds the network on its runtime, tracks whole sequences."""

    def __init__(self, saved: SavedTracker | None, running: Running) -> None:
        import torch

        torch.set_num_threads(running.threads)
        cv2.setNumThreads(running.threads)
        self._engine = None
        if saved is not None:
            self._engine = build(
                saved.network, running.runtime, running.precision, running.device, running.threads
            )
        self._warm: set[str] = set()

    def judge(self, entry: Entry, sequence: Sequence) -> Verdict:
        """Track one sequence; what its data did wrong comes back as the verdict's problem."""
        tracker = make_tracker(entry, self._engine, sequence.name)
        warm_up = 0 if entry.name in self._warm else _WARM_UP
        self._warm.add(entry.name)
        try:
            result = protocol.run_sequence(tracker, sequence, warm_up=warm_up)
        except DyTrackError as error:
            return Verdict(
                entry=entry.name, sequence=sequence.name, result=None, problem=str(error)
            )
        return Verdict(entry=entry.name, sequence=sequence.name, result=result)

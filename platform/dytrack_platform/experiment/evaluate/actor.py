"""What runs on a worker of an evaluation: one tracker at one point, on one sequence at a time."""

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
import ray

from dytrack_model import Tracker
from dytrack_model.checkpoint import SavedTracker
from dytrack_model.policy import FixedExit
from dytrack_model.runtime import build
from dytrack_model.runtime.engine import Engine
from dytrack_model.target_state import STATES
from dytrack_platform.datasets.sequence import VideoSequence
from dytrack_platform.evaluation.tracking import opencv_trackers, protocol
from dytrack_platform.experiment.evaluate.runtime_config import RuntimeConfig, make_policy
from dytrack_platform.experiment.evaluate.specs import TrackerSpec

_WARM_UP = 3  # steps before a worker's first clock runs


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of one sequence."""

    spec: str
    sequence: str
    result: protocol.SequenceResult | None
    """None where the sequence could not be tracked."""
    problem: str = ""
    """Why not."""


def make_tracker(spec: TrackerSpec, engine: Engine | None, sequence: str) -> protocol.Tracker:
    """Make the tracker of a spec for one sequence.

    The seed of random exits is the sequence's name, so a result does not depend on the worker.

    Raises:
        ConfigurationError: A third-party tracker is unknown, or its options are wrong.
        RuntimeMissingError: The installed OpenCV lacks the tracker.
    """
    if spec.rule == "third-party":
        return opencv_trackers.make_third_party(spec.third_party, dict(spec.options))
    # evaluate() refuses a spec of ours without a model
    assert engine is not None
    seed = int.from_bytes(hashlib.sha256(sequence.encode()).digest()[:4], "big")
    # Where policies are compared, a state that overrules some of them, and spends crops on looking
    # for what is lost, would be part of the difference; so they are off unless asked for.
    return Tracker(engine, make_policy(spec, seed), states=STATES if spec.states else None)


def _warm(engine: Engine) -> None:
    """Run every route, so that no clock measures a compilation or a first allocation.

    The first frames of a sequence take the exits that they take, and a later frame that is the
    first one at another exit would pay for it.
    """
    tracker = Tracker(engine, states=None)
    image = np.zeros((240, 320, 3), dtype=np.uint8)
    for _ in range(_WARM_UP):
        tracker.start(image, (120, 80, 60, 60))
        tracker.step_all(image)
        if engine.config.narrow_size:
            for exit_index in range(engine.exit_count):
                narrow = Tracker(engine, FixedExit(exit_index, narrow=True), states=None)
                narrow.start(image, (120, 80, 60, 60))
                narrow.step(image)


@ray.remote
class EvaluationActor:
    """A worker: holds the network on its runtime, tracks whole sequences."""

    def __init__(self, saved: SavedTracker | None, runtime: RuntimeConfig) -> None:
        import torch

        torch.set_num_threads(runtime.threads)
        cv2.setNumThreads(runtime.threads)
        self._engine = None
        if saved is not None:
            self._engine = build(
                saved.network,
                runtime.runtime,
                runtime.precision,
                runtime.device,
                runtime.threads,
                ranges=saved.ranges,
            )
            _warm(self._engine)
        self._warm: set[str] = set()

    def evaluate(self, spec: TrackerSpec, sequence: VideoSequence) -> Outcome:
        """Track one sequence; what its data did wrong comes back as the outcome's problem."""
        tracker = make_tracker(spec, self._engine, sequence.name)
        warm_up = 0 if spec.name in self._warm else _WARM_UP
        self._warm.add(spec.name)
        try:
            result = protocol.run_sequence(
                tracker, sequence, warm_up=warm_up, keep_states=spec.states
            )
        except protocol.UNFIT as error:
            return Outcome(spec=spec.name, sequence=sequence.name, result=None, problem=str(error))
        return Outcome(spec=spec.name, sequence=sequence.name, result=result)

"""Our tracker on a runtime, behind the interface that evaluation judges. Knows no Ray."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dytrack_model import online
from dytrack_model.checkpoint import SavedTracker
from dytrack_model.cost import exit_gmacs
from dytrack_model.images import RGB
from dytrack_model.policy import CycleExit, FixedExit, OperatingPoint, Policy, RandomExit
from dytrack_model.runtime import build
from dytrack_model.runtime.engine import Engine, Precision
from dytrack_platform.datasets.sequence import Pixels
from dytrack_platform.evaluation.tracking import protocol
from dytrack_platform.experiment.evaluate.specs import TrackerSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeConfig:
    """What runs our tracker's network."""

    runtime: str = "torch"
    """torch, compile, onnx or openvino."""
    precision: Precision = "auto"
    """fp32, bf16, int8 (openvino), or auto: the runtime's own choice."""
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
        # Else the next step is charged with what is still under way.
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()

    def step(self, image: Pixels) -> protocol.Step:
        """Find the target in the next frame."""
        track = self._tracker.step(RGB(image))
        return protocol.Step(
            box_xywh=track.box_xywh,
            score=track.predicted_iou,
            exit_index=track.exit,
            lost=track.lost,
            gmacs=self._gmacs[track.exit],
            network_ms=track.network_ms,
        )


def make_policy(spec: TrackerSpec, seed: int) -> Policy:
    """Build a fresh policy, so that one sequence leaves no trace in the next.

    Args:
        spec: A point of our tracker.
        seed: For random exits.
    """
    if spec.rule == "fixed":
        return FixedExit(int(spec.values[0]))
    if spec.rule == "random":
        return RandomExit(spec.values, seed=seed)
    if spec.rule == "cycle":
        return CycleExit([int(value) for value in spec.values])
    point = OperatingPoint(name=spec.name, thresholds=spec.values, hysteresis=spec.hysteresis)
    return point.policy()

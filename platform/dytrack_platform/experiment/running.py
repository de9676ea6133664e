"""What runs our tracker, and when it stops. Knows no Ray."""

from dataclasses import dataclass

from dytrack_model.policy import CycleExit, FixedExit, OperatingPoint, Policy, RandomExit
from dytrack_model.runtime.engine import Precision
from dytrack_platform.experiment.entries import Entry


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
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

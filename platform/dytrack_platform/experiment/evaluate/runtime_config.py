"""What runs our tracker, and when it stops. Knows no Ray."""

from dataclasses import dataclass

from dytrack_model.policy import CycleExit, FixedExit, OperatingPoint, Policy, RandomExit
from dytrack_model.runtime.engine import Precision
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


def make_policy(spec: TrackerSpec, seed: int) -> Policy:
    """Build a fresh policy, so that one sequence leaves no trace in the next.

    Args:
        spec: A point of our tracker.
        seed: For random exits.
    """
    if spec.rule == "fixed":
        return FixedExit(int(spec.values[0]), spec.narrow)
    if spec.rule == "random":
        return RandomExit(spec.values, seed=seed, narrow=spec.narrow)
    if spec.rule == "cycle":
        return CycleExit([int(value) for value in spec.values], narrow=spec.narrow)
    point = OperatingPoint(
        name=spec.name,
        thresholds=spec.values,
        hysteresis=spec.hysteresis,
        value=spec.value,
        narrow=spec.narrow,
    )
    return point.policy()

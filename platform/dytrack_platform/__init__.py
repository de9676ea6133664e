"""The experiment platform: data, training, evaluation, and their Ray and MLflow side."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dytrack_model import Tracker
    from dytrack_model.runtime.engine import Precision

__all__ = ["load_tracker"]


def load_tracker(
    where: str | Path,
    point: str = "balanced",
    runtime: str | None = None,
    precision: "Precision" = "auto",
    device: str = "cpu",
    *,
    threads: int = 0,
) -> "Tracker":
    """Open a tracker as :meth:`dytrack_model.Tracker.load` does, also one of the model registry.

    MLflow is imported for a name of the registry only.

    Args:
        where: A tracker's, a run's or an export's folder, or ``models:/NAME@ALIAS``,
            ``models:/NAME/3``.
        point: Name of a stored operating point, ``full``, or thresholds such as ``0.6,0.8``.
        runtime: torch, compile, onnx or openvino; None takes an export's own, torch otherwise.
        precision: fp32, bf16, int8 (openvino), or auto for what the runtime does by itself.
        device: Where PyTorch runs.
        threads: Threads of a graph on onnx and openvino; 0 leaves it to them.

    Raises:
        ModelLookupError: The name leads to nothing.
        CheckpointError: There is no tracker, or a damaged one.
        ConfigurationError: There is no such point; or runtime, precision and device do not go
            together.
        RuntimeMissingError: The runtime is not installed.
    """
    from dytrack_model import Tracker

    if not str(where).startswith("models:/"):
        return Tracker.load(where, point, runtime, precision, device, threads=threads)
    from dytrack_platform.experiment.registry import registry

    with TemporaryDirectory(prefix="dytrack-") as downloads:
        folder = registry.find(str(where), Path(downloads))
        return Tracker.load(folder, point, runtime, precision, device, threads=threads)

"""Runtimes: a tracker's graphs on PyTorch, ONNX Runtime or OpenVINO, behind one interface."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dytrack_model import checkpoint
from dytrack_model.checkpoint import SavedTracker
from dytrack_model.config import require
from dytrack_model.errors import ConfigurationError, RuntimeMissingError
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import OperatingPoint
from dytrack_model.runtime import export, onnx_engine, openvino_engine
from dytrack_model.runtime.devices import is_cpu, torch_device
from dytrack_model.runtime.engine import Engine, Precision
from dytrack_model.runtime.torch_engine import TorchEngine

Ranges = Mapping[str, Sequence[tuple[float, float]]]
RUNTIMES = ("torch", "compile", "onnx", "openvino")
PRECISIONS = ("auto", "fp32", "bf16", "int8")
WORTH_CONVERTING = 500
"""Frames of a video that OpenVINO is taken for unasked. Converting `reference` takes three seconds,
which 280 frames spare on a processor without bf16, and far fewer on one with (docs/LOG.md)."""


def build(
    network: DyTrackNetwork,
    runtime: str = "torch",
    precision: Precision = "auto",
    device: str | torch.device = "cpu",
    threads: int = 0,
    ranges: Ranges | None = None,
) -> Engine:
    """Put a network on a runtime.

    Args:
        network: The network; it is not changed.
        runtime: torch, compile, onnx or openvino; the last two convert it now (seconds).
        precision: fp32, bf16, int8 (openvino only), or auto: what the runtime does by itself.
        device: Where PyTorch runs; the others run on the CPU.
        threads: Threads of a graph on onnx and openvino (0: their choice); PyTorch has one
            number for the whole process, ``torch.set_num_threads``.
        ranges: Of activations, for int8; found while running where there are none.

    Raises:
        ConfigurationError: There is no such runtime, precision or device, or they do not go
            together.
        RuntimeMissingError: The runtime is not installed.
    """
    require(runtime in RUNTIMES, f"runtime: must be one of {', '.join(RUNTIMES)}, got {runtime!r}")
    require(
        precision in PRECISIONS,
        f"precision: must be one of {', '.join(PRECISIONS)}, got {precision!r}",
    )
    if runtime in ("torch", "compile"):
        device = torch_device(device)
        return TorchEngine(network, precision, device, compiled=runtime == "compile")
    require(is_cpu(device), f"device: the runtime {runtime} runs on the CPU, got {str(device)!r}")
    # Converting takes seconds: what would be refused afterwards is refused before.
    (onnx_engine if runtime == "onnx" else openvino_engine).require(precision)
    with tempfile.TemporaryDirectory(prefix="dytrack-") as folder:
        saved = SavedTracker(network=network, ranges=ranges or {})
        export.write_graphs(saved, Path(folder), "onnx")
        return export.load(folder, runtime, precision, threads)


def quickest(
    where: str | Path, frames: int | None, precision: Precision, device: str | torch.device
) -> str | None:
    """Choose the runtime that follows a target through a video soonest, where none was named.

    Args:
        where: As for :func:`open_tracker`.
        frames: That the video has; None where nobody knows, as of a camera.
        precision: As for :func:`build`; whoever names one gets it in PyTorch.
        device: Where PyTorch would run.

    Returns:
        openvino, where it is installed and the video is long; else None, which is an export's own
        runtime, or PyTorch.
    """
    few = frames is not None and frames < WORTH_CONVERTING
    export_there = (Path(where) / export.DESCRIPTION).is_file()
    if few or export_there or precision != "auto" or not is_cpu(device):
        return None
    try:
        openvino_engine.require("auto")
    except RuntimeMissingError:
        return None
    return "openvino"


@dataclass(frozen=True, slots=True)
class Opened:
    """A saved tracker that is ready to run."""

    engine: Engine
    points: tuple[OperatingPoint, ...]


def open_tracker(
    where: str | Path,
    runtime: str | None = None,
    precision: Precision = "auto",
    device: str | torch.device = "cpu",
    *,
    threads: int = 0,
) -> Opened:
    """Open a tracker's folder, that of a run, or that of an export; arguments as of :func:`build`.

    Raises:
        CheckpointError: There is no tracker, or a damaged one.
        ConfigurationError: Runtime, precision and device do not go together, the export is for
            another batch, or it is a name of the registry, which the platform reads.
        RuntimeMissingError: The runtime is not installed.
    """
    require(
        isinstance(where, str | Path), f"tracker: must be a folder's path or a name, got {where!r}"
    )
    require(
        isinstance(threads, int) and threads >= 0, f"threads: must be 0 or more, got {threads!r}"
    )
    if str(where).startswith("models:"):
        raise ConfigurationError(
            f"{where}: a name of the model registry; dytrack_platform.load_tracker reads it, "
            "Tracker.load takes a folder"
        )
    if (Path(where) / export.DESCRIPTION).is_file():
        require(is_cpu(device), f"device: an export runs on the CPU, got {str(device)!r}")
        exported = export.describe(where)
        require(
            exported.batch == 1,
            f"{where}: was exported for batches of {exported.batch}; a tracker follows one "
            "target: export with --batch 1",
        )
        return Opened(export.load(where, runtime, precision, threads), exported.points)
    if runtime in (None, "torch", "compile"):
        torch_device(device)  # refused before the weights are read
    saved = checkpoint.load(where)
    engine = build(
        saved.network, runtime or "torch", precision, device, threads, ranges=saved.ranges
    )
    return Opened(engine, saved.points)

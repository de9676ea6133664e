"""Runtimes: a tracker's graphs on PyTorch, ONNX Runtime or OpenVINO, behind one interface."""

import tempfile
from pathlib import Path

import torch

from dytrack_model.checkpoint import SavedTracker
from dytrack_model.config import require
from dytrack_model.network import DyTrackNetwork
from dytrack_model.runtime import export
from dytrack_model.runtime.engine import Engine, Precision
from dytrack_model.runtime.torch_engine import TorchEngine

RUNTIMES = ("torch", "compile", "onnx", "openvino")
PRECISIONS = ("auto", "fp32", "bf16", "int8")


def build(
    network: DyTrackNetwork,
    runtime: str = "torch",
    precision: Precision = "auto",
    device: str | torch.device = "cpu",
    threads: int = 0,
) -> Engine:
    """Put a network on a runtime.

    Args:
        network: The network; it is not changed.
        runtime: torch, compile, onnx or openvino; the last two convert it now (seconds).
        precision: fp32, bf16, int8 (openvino only), or auto: what the runtime does by itself.
        device: Where PyTorch runs; the others run on the CPU.
        threads: Threads of a graph on onnx and openvino (0: their choice); PyTorch has one
            number for the whole process, ``torch.set_num_threads``.

    Raises:
        ConfigurationError: There is no such runtime or precision, or they do not go together.
        RuntimeMissingError: The runtime is not installed.
    """
    require(runtime in RUNTIMES, f"runtime: must be one of {', '.join(RUNTIMES)}, got {runtime!r}")
    require(
        precision in PRECISIONS,
        f"precision: must be one of {', '.join(PRECISIONS)}, got {precision!r}",
    )
    if runtime in ("torch", "compile"):
        return TorchEngine(network, precision, device, compiled=runtime == "compile")
    on_cpu = torch.device(device).type == "cpu"
    require(on_cpu, f"device: the runtime {runtime} runs on the CPU, got {str(device)!r}")
    with tempfile.TemporaryDirectory(prefix="dytrack-") as folder:
        export.write_graphs(SavedTracker(network=network), Path(folder), "onnx")
        return export.load(folder, runtime, precision, threads)

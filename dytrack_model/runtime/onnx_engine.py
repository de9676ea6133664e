"""ONNX: one file for each graph, and ONNX Runtime to run them."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dytrack_model.config import ModelConfig
from dytrack_model.errors import ConfigurationError, RuntimeMissingError
from dytrack_model.runtime.engine import Engine, Native
from dytrack_model.runtime.graphs import Graph, Ports, require_links

SUFFIX = ".onnx"
_OPSET = 20  # the first one with GELU


def write(module: nn.Module, graph: Graph, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write one graph of a network as ONNX, its tensors named as in the chain.

    Args:
        module: The graph's, of a network whose attention is spelled out.
        graph: Which graph.
        tensors: An example (*) of every input; shapes are fixed to theirs.
        path: File to write.

    PyTorch's older exporter, which traces, is used on purpose: on these graphs it takes a twentieth
    of the newer one's time, and what it writes is as fast.
    """
    with warnings.catch_warnings():
        # It announces its successor, and that shapes become constants, which is meant here.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(tensors[name] for name in graph.inputs),
            str(path),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            opset_version=_OPSET,
            dynamo=False,
        )


class OnnxEngine(Engine):
    """ONNX Runtime on the CPU, in fp32.

    Args:
        config: The network's configuration.
        chain: The graphs.
        files: The file of each graph by name.
        threads: Threads of each graph; 0 lets the runtime choose.
        precision: fp32 or auto; the CPU provider has no bf16, and an export no int8.

    Raises:
        RuntimeMissingError: ONNX Runtime is not installed.
        ConfigurationError: Another precision was asked for.
    """

    def __init__(
        self,
        config: ModelConfig,
        chain: tuple[Graph, ...],
        files: Mapping[str, Path],
        threads: int = 0,
        precision: str = "auto",
    ) -> None:
        onnxruntime = require(precision)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Each graph has threads of its own; the idle ones must not spin beside the one that works.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        graphs, ports = {}, {}
        for graph in chain:
            session = onnxruntime.InferenceSession(
                str(files[graph.name]), options, providers=["CPUExecutionProvider"]
            )
            graphs[graph.name] = _Session(session, graph)
            ports[graph.name] = Ports(
                reads={port.name: tuple(port.shape) for port in session.get_inputs()},
                gives={port.name: tuple(port.shape) for port in session.get_outputs()},
            )
        require_links(config, files, ports)
        super().__init__(config, "onnx", "fp32", graphs)

    def adopt(self, array: NDArray[np.uint8] | NDArray[np.float32]) -> Native:
        """Return contiguous crops (B, S, S, 3)."""
        return np.ascontiguousarray(array)

    def keep(self, tensor: Native) -> Native:
        """Copy (*)."""
        return np.array(tensor)

    def join(self, tensors: Sequence[Native], axis: int) -> Native:
        """Concatenate (..., B, ...)."""
        return np.concatenate(list(tensors), axis=axis)

    def split(self, tensor: Native, counts: Sequence[int], axis: int) -> list[Native]:
        """Cut (..., B, ...) and copy."""
        places = np.cumsum(counts)[:-1]
        return [np.ascontiguousarray(part) for part in np.split(tensor, places, axis=axis)]

    def to_torch(self, tensor: Native) -> Tensor:
        """Share the memory (*)."""
        return torch.from_numpy(tensor)


def require(precision: str) -> Any:  # noqa: ANN401  (the package has no types)
    """Return ONNX Runtime, if it is there and computes in ``precision``; costs no graph.

    Raises:
        RuntimeMissingError: ONNX Runtime is not installed.
        ConfigurationError: It computes in another precision.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeMissingError(
            "runtime onnx: the package onnxruntime is not installed: "
            "pip install 'dytrack[export]', or choose the runtime torch"
        ) from error
    if precision not in ("auto", "fp32"):
        raise ConfigurationError(
            f"precision: ONNX Runtime computes in fp32 on a CPU, got {precision}; choose fp32, "
            "or the runtime openvino"
        )
    return onnxruntime


class _Session:
    """One graph of ONNX Runtime as a call."""

    def __init__(self, session: object, graph: Graph) -> None:
        self._session, self._graph = session, graph

    def __call__(self, *arrays: NDArray[np.generic]) -> tuple[NDArray[np.generic], ...]:
        feed = dict(zip(self._graph.inputs, arrays, strict=True))
        run = self._session.run  # type: ignore[attr-defined]  # the package has no types
        return tuple(run(self._graph.outputs, feed))


def check(file: Path) -> None:
    """Read a graph's file; raises whatever ONNX Runtime raises where it is damaged."""
    import onnxruntime

    onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

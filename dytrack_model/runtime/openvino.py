"""OpenVINO: one model for each graph; tensors pass from graph to graph without a copy."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dytrack_model.config import ModelConfig
from dytrack_model.errors import ConfigurationError, RuntimeMissingError
from dytrack_model.network import DyTrackNetwork
from dytrack_model.runtime import onnx
from dytrack_model.runtime.engine import Engine, Native, Precision
from dytrack_model.runtime.stages import Graph

SUFFIX = ".xml"
_HINTS = {"fp32": "f32", "bf16": "bf16"}


def write(network: DyTrackNetwork, graph: Graph, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write one graph of a network as ``.xml`` and ``.bin``, weights in fp32.

    Args:
        network: The network.
        graph: Which graph.
        tensors: An example of every input, such as a search crop (B, S, S, 3); shapes are fixed
            to theirs.
        path: The ``.xml`` file to write.

    Raises:
        RuntimeMissingError: OpenVINO is not installed.
    """
    openvino = _openvino()
    with tempfile.TemporaryDirectory(prefix="dytrack-") as folder:
        between = Path(folder) / f"{graph.name}{onnx.SUFFIX}"
        onnx.write(network, graph, tensors, between)
        openvino.save_model(openvino.Core().read_model(between), path, compress_to_fp16=False)


class OpenVinoEngine(Engine):
    """OpenVINO on the CPU.

    Left to itself OpenVINO computes in bf16 where the CPU has instructions for it; the engine's
    ``precision`` says what really runs.

    Args:
        config: The network's configuration.
        chain: The graphs.
        files: The file of each graph by name, ONNX or OpenVINO's own.
        threads: Threads of each graph; 0 lets the runtime choose.
        precision: fp32, bf16, or auto for OpenVINO's own choice.

    Raises:
        RuntimeMissingError: OpenVINO is not installed.
        ConfigurationError: bf16 was asked for and the CPU has none.
    """

    def __init__(
        self,
        config: ModelConfig,
        chain: tuple[Graph, ...],
        files: Mapping[str, Path],
        threads: int = 0,
        precision: Precision = "auto",
    ) -> None:
        openvino = _openvino()
        core = openvino.Core()
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        if precision != "auto":
            settings["INFERENCE_PRECISION_HINT"] = _HINTS[precision]
        abilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "bf16" and "BF16" not in abilities:
            raise ConfigurationError(
                f"precision: this CPU has no bf16 (OpenVINO finds {', '.join(abilities)}); "
                "choose fp32"
            )
        self._tensor = openvino.Tensor
        compiled = {g.name: core.compile_model(files[g.name], "CPU", settings) for g in chain}
        chosen = compiled["stage0"].get_property("INFERENCE_PRECISION_HINT")
        names = {"f32": "fp32", "float": "fp32", "bf16": "bf16", "bfloat16": "bf16"}
        precise = names.get(chosen.to_string(), chosen.to_string())
        graphs = {graph.name: _Request(compiled[graph.name], graph) for graph in chain}
        super().__init__(config, "openvino", precise, graphs)

    def adopt(self, array: NDArray[np.uint8]) -> Native:
        """Share the memory of contiguous crops (B, S, S, 3)."""
        return self._tensor(np.ascontiguousarray(array), shared_memory=True)

    def keep(self, tensor: Native) -> Native:
        """Copy, whatever the shape: the request writes its next output to the same memory."""
        return self._tensor(np.array(tensor.data), shared_memory=False)

    def to_torch(self, tensor: Native) -> Tensor:
        """Share the memory, whatever the shape."""
        return torch.from_numpy(tensor.data)


class _Request:
    """One compiled graph as a call."""

    def __init__(self, compiled: Any, graph: Graph) -> None:  # noqa: ANN401  (no types)
        self._request = compiled.create_infer_request()
        self._outputs = range(len(graph.outputs))

    def __call__(self, *tensors: Native) -> tuple[Native, ...]:
        request = self._request
        for index, tensor in enumerate(tensors):
            request.set_input_tensor(index, tensor)
        request.infer()
        return tuple(request.get_output_tensor(index) for index in self._outputs)


def _openvino() -> Any:  # noqa: ANN401  (the package has no types)
    try:
        import openvino
    except ImportError as error:
        raise RuntimeMissingError(
            "runtime openvino: the package openvino is not installed: "
            "pip install 'dytrack[export]', or choose the runtime torch"
        ) from error
    return openvino

"""OpenVINO: one model for each graph; tensors pass from graph to graph without a copy.

Where a graph computes in bf16, what it passes on is bf16 too: as fp32 it would be widened at the
end of each graph and rounded again at the start of the next, which took a tenth of a small
tracker's time.
"""

import functools
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dytrack_model.config import ModelConfig
from dytrack_model.errors import ConfigurationError, RuntimeMissingError
from dytrack_model.runtime import onnx_engine, quantisation
from dytrack_model.runtime.engine import Engine, Native, Precision
from dytrack_model.runtime.graphs import PASSED_ON, Graph, Ports, part, require_links

SUFFIX = ".xml"
_NEEDS = {"bf16": "BF16", "int8": "INT8"}
"""OpenVINO's word for what a processor must be able to do."""
_GROUP = 64
"""Neighbouring activations that share a scale in int8; 32 and 128 were slower."""
_ONE_AT_A_TIME = threading.Lock()
"""Two threads that ask at once would make two cores, one of which would go."""


def write(module: nn.Module, graph: Graph, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write one graph of a network as ``.xml`` and ``.bin``, weights in fp32.

    Args:
        module: The graph's, of a network whose attention is spelled out.
        graph: Which graph.
        tensors: An example (*) of every input; shapes are fixed to theirs.
        path: The ``.xml`` file to write.

    Raises:
        RuntimeMissingError: OpenVINO is not installed.
    """
    openvino = _openvino()
    with tempfile.TemporaryDirectory(prefix="dytrack-") as folder:
        between = Path(folder) / f"{graph.name}{onnx_engine.SUFFIX}"
        onnx_engine.write(module, graph, tensors, between)
        openvino.save_model(core().read_model(between), path, compress_to_fp16=False)


class OpenVinoEngine(Engine):
    """OpenVINO on the CPU.

    Left to itself OpenVINO computes in bf16 where the CPU has instructions for it; the engine's
    ``precision`` says what really runs. With ``int8`` the linear layers multiply in int8: weights
    are rounded once, with a scale for each output, and activations by ranges that were found
    beforehand, or else while running, with a scale for each 64 of them. All else, and layers whose
    range is empty, runs in bf16, or fp32 where the CPU has no bf16.

    Args:
        config: The network's configuration.
        chain: The graphs.
        files: The file of each graph by name, ONNX or OpenVINO's own.
        threads: Threads of each graph; 0 lets the runtime choose.
        precision: fp32, bf16, int8, or auto for OpenVINO's own choice.
        ranges: For int8: of every layer's input, by graph; see
            :mod:`~dytrack_model.runtime.quantisation`.

    Raises:
        RuntimeMissingError: OpenVINO is not installed.
        CheckpointError: The ranges are of other graphs.
        ConfigurationError: The CPU lacks the precision that was asked for.
    """

    def __init__(
        self,
        config: ModelConfig,
        chain: tuple[Graph, ...],
        files: Mapping[str, Path],
        threads: int = 0,
        precision: Precision = "auto",
        ranges: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    ) -> None:
        openvino = require(precision)
        self._tensor = openvino.Tensor
        compiled = {
            graph.name: compiled_graph(
                files[graph.name],
                precision,
                threads,
                # Over its middle a layer is given what it is given over the whole search crop.
                ranges[graph.whole_name] if ranges else None,
            )
            for graph in chain
        }
        ports = {graph.name: _ports(compiled[graph.name], graph) for graph in chain}
        require_links(config, files, ports)
        chosen = compiled["stage0"].get_property("INFERENCE_PRECISION_HINT")
        precise = "bf16" if chosen == openvino.Type.bf16 else "fp32"
        graphs = {graph.name: _Request(compiled[graph.name], graph) for graph in chain}
        super().__init__(config, "openvino", "int8" if precision == "int8" else precise, graphs)

    def adopt(self, array: NDArray[np.uint8] | NDArray[np.float32]) -> Native:
        """Share the memory of contiguous crops (B, S, S, 3)."""
        return self._tensor(np.ascontiguousarray(array), shared_memory=True)

    def keep(self, tensor: Native) -> Native:
        """Copy (*): the request writes its next output to the same memory."""
        kept = self._tensor(tensor.element_type, tensor.shape)
        tensor.copy_to(kept)
        return kept

    def join(self, tensors: Sequence[Native], axis: int) -> Native:
        """Concatenate (..., B, ...)."""
        joined = np.concatenate([tensor.data for tensor in tensors], axis=axis)
        return self._typed(joined, tensors[0].element_type)

    def split(self, tensor: Native, counts: Sequence[int], axis: int) -> list[Native]:
        """Cut (..., B, ...) and copy."""
        parts = np.split(tensor.data, np.cumsum(counts)[:-1], axis=axis)
        return [self._typed(part, tensor.element_type) for part in parts]

    def _typed(self, array: NDArray[np.generic], element_type: Any) -> Native:  # noqa: ANN401  (no types)
        """Copy (*) into a tensor; numpy has no bf16 and shows its bits as another type."""
        made = self._tensor(element_type, list(array.shape))
        made.data[...] = array
        return made

    def to_torch(self, tensor: Native) -> Tensor:
        """Share the memory (*) of what the host reads, fp32."""
        return torch.from_numpy(tensor.data)


def compiled_graph(
    file: Path,
    precision: Precision,
    threads: int = 0,
    ranges: Sequence[tuple[float, float]] | None = None,
) -> Any:  # noqa: ANN401  (no types)
    """Compile one graph for the CPU.

    Args:
        file: The graph, ONNX or OpenVINO's own.
        precision: fp32, bf16, int8, or auto for OpenVINO's own choice.
        threads: Threads of the graph; 0 lets OpenVINO choose.
        ranges: Of the inputs of the layers that int8 rounds; found while running where None.
    """
    import openvino

    arithmetic = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16}.get(
        precision, core().get_property("CPU", "INFERENCE_PRECISION_HINT")
    )
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_PRECISION_HINT": arithmetic,
        **quantisation.UNPINNED,
    }
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    model = core().read_model(file)
    if precision == "int8":
        if ranges is not None:
            quantisation.fix(model, ranges, file.name)
        _round_weights(model, ranges)
        settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = str(_GROUP if ranges is None else 0)
    if arithmetic == openvino.Type.bf16:
        model = _pass_on(model, arithmetic)
    return core().compile_model(model, "CPU", settings)


def _pass_on(model: Any, arithmetic: Any) -> Any:  # noqa: ANN401  (no types)
    """Return a graph that passes tensors on, and takes them, in the type of its arithmetic.

    What the host reads stays fp32, and images stay bytes.
    """
    from openvino import Type
    from openvino.preprocess import PrePostProcessor

    changed: Any = PrePostProcessor(model)
    for ports, find in ((model.inputs, changed.input), (model.outputs, changed.output)):
        for port in ports:
            name = next(iter(port.names), "")
            if part(name) in PASSED_ON and port.element_type == Type.f32:
                find(name).tensor().set_element_type(arithmetic)
    return changed.build()


def _round_weights(model: Any, ranges: Sequence[tuple[float, float]] | None) -> None:  # noqa: ANN401  (no types)
    """Put int8 weights with a scale for each output in the place of a graph's linear layers'.

    Layers whose range is empty keep theirs.
    """
    from openvino import opset13 as ops

    for index, node in enumerate(quantisation.layers(model)):
        if ranges is not None and ranges[index][0] == ranges[index][1]:
            continue
        weights = node.input_value(1).get_node()
        how = node.get_attributes()
        values = weights.data if how["transpose_b"] else weights.data.T
        scales = np.abs(values).max(axis=1, keepdims=True).astype(np.float32) / 127
        scales[scales == 0] = 1.0
        rounded = np.ascontiguousarray(np.rint(values / scales), dtype=np.int8)
        restored = ops.multiply(ops.convert(ops.constant(rounded), "f32"), ops.constant(scales))
        product = ops.matmul(node.input_value(0), restored, how["transpose_a"], True)
        product.set_friendly_name(node.get_friendly_name())
        node.output(0).replace(product.output(0))


def _ports(compiled: Any, graph: Graph) -> Ports:  # noqa: ANN401  (no types)
    """Say what a compiled graph reads and gives; a port may have several names."""

    def shapes(ports: Any, expected: Sequence[str]) -> dict[str, tuple[int, ...]]:  # noqa: ANN401
        found = {}
        for index, port in enumerate(ports):
            own = expected[index] if index < len(expected) else ""
            found[own if own in port.names else min(port.names, default="")] = tuple(port.shape)
        return found

    return Ports(
        reads=shapes(compiled.inputs, graph.inputs), gives=shapes(compiled.outputs, graph.outputs)
    )


class _Request:
    """One compiled graph as a call.

    Its outputs stay where they are, since shapes are fixed, so that between graphs a tensor is
    named once; only what is new in a frame is set again.
    """

    def __init__(self, compiled: Any, graph: Graph) -> None:  # noqa: ANN401  (no types)
        self._request = compiled.create_infer_request()
        self._outputs = tuple(
            self._request.get_output_tensor(index) for index in range(len(graph.outputs))
        )
        self._inputs: list[Native] = [None] * len(graph.inputs)

    def __call__(self, *tensors: Native) -> tuple[Native, ...]:
        for index, tensor in enumerate(tensors):
            if tensor is not self._inputs[index]:
                self._request.set_input_tensor(index, tensor)
                self._inputs[index] = tensor
        self._request.infer()
        return self._outputs


def require(precision: str) -> Any:  # noqa: ANN401  (the package has no types)
    """Return OpenVINO, if it is there and this CPU computes in ``precision``; costs no graph.

    Raises:
        RuntimeMissingError: OpenVINO is not installed.
        ConfigurationError: The CPU lacks the precision.
    """
    openvino = _openvino()
    abilities = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if _NEEDS.get(precision, "FP32") not in abilities:
        raise ConfigurationError(
            f"precision: this CPU has no {precision} (OpenVINO finds {', '.join(abilities)}); "
            "choose fp32"
        )
    return openvino


def core() -> Any:  # noqa: ANN401  (the package has no types)
    """Return OpenVINO's core, the same one to all of a process, to its end.

    A core gives the thread that loads its CPU plugin a stack for signals, and takes it away when
    the core goes. Of two that overlap, the first to go leaves the thread with memory that is not
    its own any more, and the next Ctrl-C is a segmentation fault, or writes there.

    Raises:
        RuntimeMissingError: OpenVINO is not installed.
    """
    with _ONE_AT_A_TIME:
        return _only_core()


@functools.cache
def _only_core() -> Any:  # noqa: ANN401  (the package has no types)
    return _openvino().Core()


def _openvino() -> Any:  # noqa: ANN401  (the package has no types)
    try:
        import openvino
    except ImportError as error:
        raise RuntimeMissingError(
            "runtime openvino: the package openvino is not installed: "
            "pip install 'dytrack[export]', or choose the runtime torch"
        ) from error
    return openvino


def check(file: Path) -> None:
    """Read a graph's file; raises whatever OpenVINO raises where it is damaged."""
    core().read_model(file)

"""PyTorch as a runtime: eager, and compiled by ``torch.compile``."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dytrack_model.config import require
from dytrack_model.errors import ConfigurationError
from dytrack_model.network import DyTrackNetwork
from dytrack_model.runtime.engine import Engine, Native, Precision
from dytrack_model.runtime.graphs import evaluation_copy, modules

_OWN_CACHE: dict[str, Any] = (
    {"isolate_recompiles": True}
    if "isolate_recompiles" in inspect.signature(torch.compile).parameters
    else {}
)
"""The stages share code and differ in weights; without a cache of its own each one, and those of
every other tracker in the process, would count as a recompile. Older torch knows none."""


class TorchEngine(Engine):
    """The network's own modules, graph by graph.

    Args:
        network: The network. It is not changed: the engine runs a copy in evaluation mode, which
            shares its weights where both are on the same device.
        precision: ``bf16`` runs the blocks under autocast; ``auto`` is fp32.
        device: Where it runs.
        compiled: Compile every graph when it first runs (some ten seconds each).

    Raises:
        ConfigurationError: int8 was asked for.
    """

    def __init__(
        self,
        network: DyTrackNetwork,
        precision: Precision = "auto",
        device: str | torch.device = "cpu",
        *,
        compiled: bool = False,
    ) -> None:
        require(
            precision != "int8",
            "precision: PyTorch runs in fp32 or bf16, got int8; choose the runtime openvino",
        )
        self._device = torch.device(device)
        network = evaluation_copy(network, self._device)
        half = precision == "bf16"
        graphs = {}
        for graph, module in modules(network):
            part: nn.Module | Callable[..., tuple[Tensor, ...]] = module
            if compiled:
                part = torch.compile(module, fullgraph=True, dynamic=False, **_OWN_CACHE)
            # Heads stay in fp32: rounded to bf16, scores tie, and the peak jumps.
            halved = half and graph.kind != "head"
            graphs[graph.name] = _inference(part, self._device.type, halved)
        name = "compile" if compiled else "torch"
        self.any_batch = not compiled
        super().__init__(network.config, name, "bf16" if half else "fp32", graphs)

    def adopt(self, array: NDArray[np.uint8] | NDArray[np.float32]) -> Native:
        """Return crops (B, S, S, 3) on the device."""
        return torch.from_numpy(array).to(self._device)

    def wait(self) -> None:
        """Return when the device has done all that it was asked for."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def keep(self, tensor: Native) -> Native:
        """Copy (*), since a compiled graph may write its next output to the same memory."""
        return tensor.clone()

    @torch.inference_mode()
    def join(self, tensors: Sequence[Native], axis: int) -> Native:
        """Concatenate (..., B, ...)."""
        return torch.cat(list(tensors), dim=axis)

    @torch.inference_mode()
    def split(self, tensor: Native, counts: Sequence[int], axis: int) -> list[Native]:
        """Cut (..., B, ...); copied, since a compiled graph may overwrite what it gave."""
        parts = tensor.split(list(counts), dim=axis)
        return list(parts) if self.any_batch else [part.clone() for part in parts]

    def to_torch(self, tensor: Native) -> Tensor:
        """Return float32 (*) on the CPU; waits for the device."""
        return tensor.float().cpu()  # type: ignore[no-any-return]


def _inference(
    part: Callable[..., tuple[Tensor, ...]], device: str, half: bool
) -> Callable[..., tuple[Tensor, ...]]:
    """Run a part without gradients, in bf16 where asked for."""

    @torch.inference_mode()
    def _run(*tensors: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=half):
            return part(*tensors)

    return _run


def as_engine(network: object, device: str | torch.device) -> Engine:
    """Return what runs a network: an engine itself, or PyTorch.

    Raises:
        ConfigurationError: It is neither a network nor an engine.
    """
    if isinstance(network, DyTrackNetwork):
        return TorchEngine(network, device=device)
    if isinstance(network, Engine):
        return network
    raise ConfigurationError(
        f"network: must be a DyTrackNetwork or an engine, got {type(network).__name__}; "
        "Tracker.load opens a saved tracker by its name or folder"
    )

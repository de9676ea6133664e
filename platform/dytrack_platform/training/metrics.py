"""What a training step costs and achieves: times, samples, arithmetic and its share of the peak."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from dytrack_model.cost import exit_gmacs
from dytrack_model.network import DyTrackNetwork
from dytrack_platform.config import Precision
from dytrack_platform.training.progress import Progress

_DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}

Item = TypeVar("Item")


def dtype_of(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the arithmetic of ``train.precision`` on a device; ``auto`` depends on the device."""
    if precision == "auto":
        return torch.bfloat16 if computes_bf16(device) else torch.float32
    return _DTYPES[precision]


def computes_bf16(device: torch.device) -> bool:
    """Tell whether a device multiplies in bf16 by itself.

    A processor without such instructions emulates them: a training took 20 times longer on one.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found = (
        getattr(torch.cpu, name, lambda: False)
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return device.type == "cpu" and any(ask() for ask in found)


def pair_gflop(network: DyTrackNetwork, *, frozen: bool = False) -> float:
    """Count the arithmetic of training on one pair, forward and backward, in GFLOP.

    Every exit runs. The backward pass costs twice the forward one; none of it is counted for a
    frozen backbone. Distillation's projections are left out (below 1 %).
    """
    config = network.config
    heads = [head.macs() for head in network.heads]  # type: ignore[operator]
    decide = sum(part.macs() for part in network.decisioners)  # type: ignore[operator]
    search = config.map_size**2
    recycle = sum(part.macs(search) for part in network.recycling)  # type: ignore[operator]
    tops = (sum(heads) + decide + recycle) / 1e9
    backbone = exit_gmacs(network)[-1] - (heads[-1] + decide + recycle) / 1e9
    template = config.template_map_size**2
    backbone += template * config.width * 3 * config.patch**2 / 1e9
    if network.backbone.cached:
        linear = sum(
            module.weight.numel()
            for module in network.backbone.blocks.modules()
            if isinstance(module, torch.nn.Linear)
        )
        attention = 2 * template * template * config.width * config.depth
        backbone += (template * linear + attention) / 1e9
    return float(2 * (backbone * (1 if frozen else 3) + tops * 3))


def peak_gflops(device: torch.device, dtype: torch.dtype) -> float:
    """Measure what a large matrix product reaches on a device, in GFLOP/s (best of three)."""
    # Large enough to be bound by arithmetic and small enough to take no time; a peak from a data
    # sheet would tell nothing about a shared or a power-limited machine.
    side = 768 if device.type == "cpu" else 8192
    left = torch.ones(side, side, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(4):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        began = time.perf_counter()
        left @ left
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best / 1e9


@dataclass(slots=True)
class Meter:
    """Means of losses and shares of time between two reports."""

    steps: int
    """Steps in all."""
    steps_per_epoch: int
    first: int
    """Step that this process starts from."""
    gflop: float
    """Arithmetic of one pair."""
    peak: float
    """GFLOP/s of this device."""
    _worked: float = 0.0
    _worked_in_all: float = 0.0
    _waited: float = 0.0
    _samples: int = 0
    _count: int = 0
    _sound: int = 0
    _since: float = field(default_factory=time.perf_counter)
    _sums: dict[str, Tensor] = field(default_factory=dict)

    def wait_for(self, items: Iterator[Item]) -> Item | None:
        """Take the next item, and count the time until it came."""
        self._since = began = time.perf_counter()
        item = next(items, None)
        self._waited += time.perf_counter() - began
        return item

    def add(self, values: dict[str, Tensor], samples: int) -> None:
        """Count a step that :meth:`wait_for` began: scalars, or (N,) values; none if left out."""
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._samples += samples
        self._count += 1
        self._sound += bool(values)
        self._worked += time.perf_counter() - self._since

    def flush(self, step: int, rates: dict[str, float], skipped: int) -> Progress:
        """Return the means since the last call and begin anew."""
        # Here and not in ``add``: reading a value waits for the device, and would do so in every
        # step.
        means = {name: float(value) / self._sound for name, value in self._sums.items()}
        means.setdefault("loss", float("nan"))
        seconds = max(self._worked, 1e-9)
        self._worked_in_all += seconds
        gflops = self.gflop * self._samples / seconds
        progress = Progress(
            epoch=(step - 1) // self.steps_per_epoch,
            step=step,
            steps=self.steps,
            steps_per_epoch=self.steps_per_epoch,
            at=time.time(),
            samples_per_s=self._samples / seconds,
            step_s=seconds / max(self._count, 1),
            data_wait=self._waited / seconds,
            gflops=gflops,
            mfu=gflops / self.peak,
            seconds_left=self._worked_in_all / max(step - self.first, 1) * (self.steps - step),
            rates=rates,
            grad_norms={k[5:]: v for k, v in means.items() if k.startswith("norm/")},
            losses={k: v for k, v in means.items() if not k.startswith("norm/")},
            skipped=skipped,
        )
        self._worked = self._waited = 0.0
        self._samples = self._count = self._sound = 0
        self._sums = {}
        return progress

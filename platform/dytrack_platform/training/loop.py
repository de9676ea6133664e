"""The training loop: plain torch, told what to do with progress and checkpoints by callbacks.

It does not know how it is distributed: the caller wraps the module and gives each worker its
part of the stream. Position in the stream is (epoch, step of the epoch), both derived from the
number of optimiser steps, so a restored state continues in the middle of an epoch.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from dytrack_platform.config import ExperimentConfig
from dytrack_platform.errors import TrainingError
from dytrack_platform.training.objective import Losses
from dytrack_platform.training.optim import rate_factor, set_rate
from dytrack_platform.training.state import TrainingState


class Batch(Protocol):
    """Pairs as tensors."""

    @property
    def template(self) -> Tensor:
        """(B, 3, T, T) uint8 RGB."""
        ...

    @property
    def search(self) -> Tensor:
        """(B, 3, S, S) uint8 RGB."""
        ...

    @property
    def boxes_cxcywh(self) -> Tensor:
        """(B, 4) float32, in [0, 1] of the search crop."""
        ...


class Stream(Protocol):
    """A source of batches that can start anywhere."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        ...

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Give the batches of an epoch from a step on."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What a callback learns after some steps."""

    epoch: int
    """Counted from 0."""
    step: int
    """Optimiser steps done, over all epochs."""
    steps: int
    """Optimiser steps in all."""
    samples_per_s: float
    """Pairs per second of this worker since the last report, waiting included."""
    data_wait: float
    """Share of the time that the step waited for data, in [0, 1]."""
    seconds_left: float
    """Estimate until the end."""
    rate: float
    """Learning rate of the heads."""
    grad_norm: float
    """Norm of the last gradient before clipping."""
    losses: dict[str, float]
    """Means since the last report: ``loss`` and the parts of the objective."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hooks:
    """What the loop calls."""

    report: Callable[[Progress], None]
    """After every ``report_steps`` steps and at the end of an epoch."""
    checkpoint: Callable[[TrainingState, Progress], None]
    """After every ``train.checkpoint_steps`` steps and at the end."""
    report_steps: int = 20


def run(
    config: ExperimentConfig,
    state: TrainingState,
    module: nn.Module,
    stream: Stream,
    hooks: Hooks,
    device: torch.device,
) -> None:
    """Train from ``state.step`` to the end.

    Args:
        config: The experiment.
        state: Module and optimiser; changed in place.
        module: ``state.module`` or a parallel wrapper around it; this is what is called.
        stream: This worker's part of the batches.
        hooks: Callbacks.
        device: Where the module is.

    Raises:
        TrainingError: The loss is not finite.
    """
    steps = config.train.epochs * stream.steps_per_epoch
    meter = _Meter(steps, len(range(state.step, steps)))
    module.train()
    for epoch in range(state.step // stream.steps_per_epoch, config.train.epochs):
        batches = stream.batches(epoch, state.step % stream.steps_per_epoch)
        while (batch := meter.wait_for(batches)) is not None:
            grad_norm, losses = _step(config, state, module, batch, device, state.step / steps)
            state.step += 1
            meter.add(losses, len(batch.boxes_cxcywh))
            at_end = state.step % stream.steps_per_epoch == 0
            saving = state.step % config.train.checkpoint_steps == 0 or state.step == steps
            if at_end or saving or state.step % hooks.report_steps == 0:
                rate = float(state.optimizer.param_groups[0]["lr"])
                progress = meter.flush(epoch, state.step, rate, float(grad_norm))
                hooks.report(progress)
                if saving:
                    hooks.checkpoint(state, progress)


def _step(
    config: ExperimentConfig,
    state: TrainingState,
    module: nn.Module,
    batch: Batch,
    device: torch.device,
    progress: float,
) -> tuple[Tensor, Losses]:
    set_rate(state.optimizer, rate_factor(config.train, progress))
    tensors = [
        t.to(device, non_blocking=True) for t in (batch.template, batch.search, batch.boxes_cxcywh)
    ]
    half = config.train.precision == "bf16"
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
        losses: Losses = module(*tensors, progress)
    if not torch.isfinite(losses.total):
        raise TrainingError(
            f"the loss is {losses.total.item()} at step {state.step}: lower train.head_lr or "
            "train.backbone_lr, or train in fp32"
        )
    state.optimizer.zero_grad(set_to_none=True)
    losses.total.backward()  # type: ignore[no-untyped-call]
    limit = config.train.clip_norm or float("inf")
    grad_norm = torch.nn.utils.clip_grad_norm_(module.parameters(), limit)
    state.optimizer.step()
    return grad_norm, losses


class _Meter:
    """Means of losses and shares of time between two reports."""

    def __init__(self, steps: int, remaining: int) -> None:
        self._steps = steps
        self._began = self._since = time.perf_counter()
        self._first = steps - remaining
        self._waited = 0.0
        self._samples = 0
        self._count = 0
        self._sums: dict[str, Tensor] = {}

    def wait_for(self, batches: Iterator[Batch]) -> Batch | None:
        began = time.perf_counter()
        batch = next(batches, None)
        self._waited += time.perf_counter() - began
        return batch

    def add(self, losses: Losses, samples: int) -> None:
        for name, value in {"loss": losses.total.detach(), **losses.parts}.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._samples += samples
        self._count += 1

    def flush(self, epoch: int, step: int, rate: float, grad_norm: float) -> Progress:
        now = time.perf_counter()
        seconds = max(now - self._since, 1e-9)
        per_step = (now - self._began) / max(step - self._first, 1)
        progress = Progress(
            epoch=epoch,
            step=step,
            steps=self._steps,
            samples_per_s=self._samples / seconds,
            data_wait=self._waited / seconds,
            seconds_left=per_step * (self._steps - step),
            rate=rate,
            grad_norm=grad_norm,
            losses={name: float(value) / self._count for name, value in self._sums.items()},
        )
        self._since, self._waited, self._samples, self._count = now, 0.0, 0, 0
        self._sums = {}
        return progress

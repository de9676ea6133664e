"""The training loop: plain torch, told what to do with progress and checkpoints by callbacks.

It does not know how it is distributed: the caller wraps the module and gives each worker its
part of the stream. Position in the stream is (epoch, step of the epoch), both derived from the
number of optimiser steps, so a restored state continues in the middle of an epoch.

After each step all workers agree, in one exchange of two numbers, on whether the step was sound
and on whether to write a checkpoint or to stop: none of them waits for another that does not come.
Where nobody looks at the losses of single steps (on a GPU), they agree one step later.
"""

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from dytrack_platform.config import ExperimentConfig
from dytrack_platform.errors import TrainingError
from dytrack_platform.training.batches import Batch, Stream
from dytrack_platform.training.callbacks import Callbacks, Request
from dytrack_platform.training.distributed import DelayedVote, highest, hold_gradients
from dytrack_platform.training.metrics import Meter, dtype_of, pair_gflop, peak_gflops
from dytrack_platform.training.objective import Losses
from dytrack_platform.training.optim import clip, norms, rate_factor, rates, set_rate
from dytrack_platform.training.progress import Progress
from dytrack_platform.training.state import TrainingState


class Writer(Protocol):
    """Saves what the loop has reached."""

    def checkpoint(self, state: TrainingState, progress: Progress) -> None:
        """Write a checkpoint: every ``train.checkpoint_steps`` steps, on request, at the end."""

    def sample_images(self, state: TrainingState) -> None:
        """Draw sample predictions, at the end of an epoch."""


def run(
    config: ExperimentConfig,
    state: TrainingState,
    module: nn.Module,
    stream: Stream,
    callbacks: Callbacks,
    writer: Writer,
    device: torch.device,
) -> bool:
    """Train from ``state.step`` to the end.

    Args:
        config: The experiment.
        state: Module and optimiser; changed in place.
        module: ``state.module`` or a parallel wrapper around it; this is what is called.
        stream: This worker's part of the batches.
        callbacks: Take progress and broken batches, and may ask for a checkpoint or the end.
        writer: Writes checkpoints and sample images.
        device: Where the module is.

    Returns:
        Whether the last step was reached; if not, a worker asked to stop.

    Raises:
        TrainingError: More batches than allowed had a loss or gradient that is not finite.
    """
    per_epoch = stream.steps_per_epoch
    steps = config.train.epochs * per_epoch
    meter: Meter | None = None
    vote = DelayedVote(device)
    module.train()
    for epoch in range(state.step // per_epoch, config.train.epochs):
        batches = stream.batches(epoch, state.step % per_epoch)
        if meter is None:
            meter = _meter(config, state, steps, per_epoch, device)
        while (batch := meter.wait_for(batches)) is not None:
            request = _step(config, state, module, batch, callbacks, device, steps, meter, vote)
            at_end = state.step % per_epoch == 0
            saving = state.step % config.train.checkpoint_steps == 0 or state.step == steps
            saving = saving or request != Request.NOTHING
            if at_end or saving or state.step % config.train.report_steps == 0:
                progress = meter.flush(state.step, rates(state.optimizer), state.skipped)
                if _unwatched(config, state, device) and not _is_finite(progress):
                    raise TrainingError(
                        "the loss or its gradient is not finite within the "
                        f"{config.train.report_steps} steps before step {state.step}; lower the "
                        "learning rates, or allow some such batches with train.skip_nonfinite"
                    )
                callbacks.progress(progress)
                if at_end:
                    summary = {"epoch": float(epoch), "step": float(state.step)}
                    state.history.append({**summary, **progress.losses})
                    writer.sample_images(state)
                if saving:
                    writer.checkpoint(state, progress)
            if request == Request.STOP and state.step < steps:
                vote.close()
                return False
    vote.close()
    return True


def _is_finite(progress: Progress) -> bool:
    """Look at the loss, and at the gradient: that of the last step spoils no loss any more."""
    return math.isfinite(progress.losses["loss"]) and math.isfinite(progress.grad_norms["all"])


def _meter(
    config: ExperimentConfig, state: TrainingState, steps: int, per_epoch: int, device: torch.device
) -> Meter:
    settings = config.train
    gflop = pair_gflop(state.module.network, frozen=settings.freeze_backbone)
    peak = peak_gflops(device, dtype_of(settings.precision, device))
    return Meter(steps, per_epoch, first=state.step, gflop=gflop, peak=peak)


def _step(
    config: ExperimentConfig,
    state: TrainingState,
    module: nn.Module,
    batch: Batch,
    callbacks: Callbacks,
    device: torch.device,
    steps: int,
    meter: Meter,
    vote: DelayedVote,
) -> Request:
    """Do one step, or leave its batch out where that is allowed; returns what was agreed on."""
    settings = config.train
    set_rate(state.optimizer, rate_factor(settings, state.step / steps))
    # Batch norm has taken in what is not finite before anybody can see it.
    buffers = [b.clone() for b in state.module.buffers()] if settings.skip_nonfinite else []
    values = _backward(config, state, module, batch, device, state.step / steps)
    loss, norm = values["loss"], values["norm/all"]
    if _unwatched(config, state, device):
        # Reading a number would let the device run dry; a loss that is not finite spoils the
        # mean of the next report, which ends the training.
        state.optimizer.step()
        state.step += 1
        if state.ema is not None:
            state.ema.update(state.step)
        meter.add(values, len(batch.boxes_cxcywh))
        return Request(vote.cast(int(callbacks.request(state.step))))
    # In fp16 an overflowing gradient is the scaler's everyday work: it halves its factor.
    fault = not torch.isfinite(loss) or not (state.scaler.is_enabled() or torch.isfinite(norm))
    broken, request = highest([int(fault), int(callbacks.request(state.step + 1))], device)
    if broken:
        _leave_out(config, state, batch, callbacks, loss, norm)
        for buffer, before in zip(state.module.buffers(), buffers, strict=True):
            buffer.copy_(before)
        if state.scaler.is_enabled():
            # Its factor falls if a gradient overflowed, and it takes gradients again: without
            # this the next step's would be unscaled a second time.
            state.scaler.update()
    else:
        state.scaler.step(state.optimizer)
        state.scaler.update()
    state.step += 1
    if state.ema is not None and not broken:
        state.ema.update(state.step)
    meter.add({} if broken else values, len(batch.boxes_cxcywh))
    return Request(request)


def _unwatched(config: ExperimentConfig, state: TrainingState, device: torch.device) -> bool:
    """Whether steps go on without the host looking at their losses.

    Not with FSDP: torch's clipping cannot mix spread weights with a norm that is not.
    """
    settings = config.train
    watched = settings.skip_nonfinite or settings.parallel == "fsdp" or state.scaler.is_enabled()
    return device.type == "cuda" and not watched


def _backward(
    config: ExperimentConfig,
    state: TrainingState,
    module: nn.Module,
    batch: Batch,
    device: torch.device,
    progress: float,
) -> dict[str, Tensor]:
    """Leave the clipped gradient of a batch in the parameters; returns losses and norms."""
    settings = config.train
    tensors = [
        t.to(device, non_blocking=True)
        for t in (batch.template, batch.search, batch.boxes_cxcywh, batch.template_boxes_cxcywh)
    ]
    if settings.channels_last:
        for index in (0, 1):
            tensors[index] = tensors[index].contiguous(memory_format=torch.channels_last)
    pairs = len(tensors[2])
    parts = list(zip(*(t.tensor_split(settings.grad_accum_steps) for t in tensors), strict=True))
    values: dict[str, Tensor] = {}
    for number, part in enumerate(parts, 1):
        hold_gradients(module, number < len(parts))
        dtype = dtype_of(settings.precision, device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            losses: Losses = module(*part[:3], progress, part[3])
        if number == 1:
            # Not before the forward pass: the memory of old gradients would go back to the
            # system and be asked for again, page by page (a twentieth of a step on a CPU).
            state.optimizer.zero_grad(set_to_none=True)
        # Parts may differ by a pair; weighted by their pairs the gradient is that of the whole
        # batch.
        share = len(part[2]) / pairs
        state.scaler.scale(losses.total * share).backward()  # type: ignore[no-untyped-call]
        for name, value in {"loss": losses.total.detach(), **losses.parts}.items():
            values[name] = values.get(name, torch.zeros_like(value)) + value * share
    # Before the norm: clipping is about the gradient, not about fp16's factor on it.
    state.scaler.unscale_(state.optimizer)
    values |= {f"norm/{name}": value for name, value in norms(state.module).items()}
    if settings.max_grad_norm and _unwatched(config, state, device):
        limited = [p for p in state.module.parameters() if p.grad is not None]
        nn.utils.clip_grads_with_norm_(limited, settings.max_grad_norm, values["norm/all"])
    elif settings.max_grad_norm:
        clip(state.module, float(values["norm/all"]), settings.max_grad_norm)
    return values


def _leave_out(
    config: ExperimentConfig,
    state: TrainingState,
    batch: Batch,
    callbacks: Callbacks,
    loss: Tensor,
    norm: Tensor,
) -> None:
    """Keep a batch that was not finite; end training where no more may be left out."""
    where = callbacks.keep_batch(batch, state.step)
    state.skipped += 1
    if state.skipped > config.train.skip_nonfinite:
        what = f"loss is {loss.item()}" if not torch.isfinite(loss) else f"gradient is {norm:.3g}"
        kept = f"; the batch is kept in {where}" if where else ""
        raise TrainingError(
            f"the {what} at step {state.step}, {state.skipped} such batches, "
            f"{config.train.skip_nonfinite} allowed (train.skip_nonfinite){kept}: lower "
            "train.head_lr or train.backbone_lr, or train in fp32"
        )

"""What a training tells whoever watches it. Imports no torch: who passes it on must start fast."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What a callback learns after some steps."""

    epoch: int
    """Counted from 0."""
    step: int
    """Optimiser steps done, over all epochs."""
    steps: int
    """Optimiser steps in all."""
    steps_per_epoch: int
    """Optimiser steps in an epoch."""
    at: float
    """When this was, in seconds since 1970."""
    samples_per_s: float
    """Pairs per second of this worker since the last report, waiting included; checkpoints and
    images are left out."""
    step_s: float
    """Mean seconds of a step, waiting for data included."""
    data_wait: float
    """Share of the time that the step waited for data, in [0, 1]."""
    gflops: float
    """Billions of floating point operations a second of this worker (model arithmetic: what is
    computed twice to save memory counts once)."""
    mfu: float
    """``gflops`` over what a large matrix product reached here in the same precision."""
    seconds_left: float
    """Estimate until the end."""
    rates: dict[str, float]
    """Learning rates: ``heads`` and ``backbone``."""
    grad_norms: dict[str, float]
    """Means of the gradient's norm before clipping: ``all``, ``backbone``, ``heads``."""
    losses: dict[str, float]
    """Means since the last report: ``loss`` and the parts of the objective."""
    skipped: int
    """Batches left out so far because they were not finite."""

"""A trial with several workers: a Ray Train run inside of a Tune trial, reporting through it.

It goes on from its last epoch where a worker is lost or the search was interrupted. What ends it
early is a file that its first worker looks for: a training inside of a trial that Tune ends can
keep its CPUs (Ray 2.60, without a dashboard), and the next trial would wait for them for ever.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device
from ray.tune.integration.ray_train import TuneReportCallback

from dytrack_platform.experiment.cluster.termination import TerminableTorch
from dytrack_platform.experiment.search.points.latency import Latency, latency_from
from dytrack_platform.experiment.search.trials.trial import (
    Clock,
    Job,
    Writer,
    is_halted,
    shortened,
    states,
)
from dytrack_platform.storage import files
from dytrack_platform.training import worker
from dytrack_platform.training.callbacks import Callbacks, Request
from dytrack_platform.training.distributed import DistributedContext

_LOOK_EVERY_S = 2.0


def train_nested(
    job: Job, number: int, changes: Mapping[str, Any], latency: Latency | None
) -> None:
    """Train a trial on ``train.workers`` processes of their own."""
    settings = shortened(job.recipe, changes).train
    resources = {"CPU": settings.cpus_per_worker}
    TorchTrainer(
        _work,
        train_loop_config={
            "job": asdict(job),
            "number": number,
            "changes": json.dumps(dict(changes)),
            "latency": None if latency is None else asdict(latency),
        },
        torch_config=TerminableTorch(backend="nccl" if settings.gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=settings.workers,
            use_gpu=settings.gpu,
            resources_per_worker=resources | ({"GPU": 1} if settings.gpu else {}),
        ),
        run_config=RunConfig(
            name="train",
            storage_path=job.folder(number),
            failure_config=FailureConfig(max_failures=settings.max_failures),
            callbacks=[TuneReportCallback()],  # type: ignore[no-untyped-call, list-item]
        ),
    ).fit()


def _work(settings: dict[str, Any]) -> None:
    job = Job(**{**settings["job"], "reference": tuple(settings["job"]["reference"])})
    changes = json.loads(settings["changes"])
    row = settings["latency"]
    config = shortened(job.recipe, changes)
    torch.set_num_threads(max(1, int(config.train.cpus_per_worker)))
    found = ray.train.get_context()
    context = DistributedContext(
        rank=found.get_world_rank(), world=found.get_world_size(), device=get_device()
    )
    latency = None if row is None else latency_from(row)
    number = settings["number"]
    writer = Writer(config, job, number, latency, context, ray.train.report)
    before = states(job, number)
    callbacks = _Halting(writer.clock, job, number, context)
    worker.train(config, callbacks, context, before, files.local_copy, writer=writer)


class _Halting(Callbacks):
    """Sums the time of steps, and asks for the end when the trial is to be stopped."""

    def __init__(self, clock: Clock, job: Job, number: int, context: DistributedContext) -> None:
        self._clock, self._job, self._number = clock, job, number
        self._looks = context.rank == 0  # all workers do what one of them asks for
        self._look_at = 0.0

    def request(self, step: int) -> Request:
        """Look for the file now and then."""
        asked = self._clock.request(step)
        if self._looks and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_EVERY_S
            if is_halted(self._job, self._number):
                return Request.STOP
        return asked

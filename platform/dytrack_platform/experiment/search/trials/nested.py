"""A trial with several workers: a Ray Train run inside of a Tune trial, reporting through it."""

import json
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
from dytrack_platform.experiment.search.trials.trial import Job, Writer, shortened
from dytrack_platform.training import worker
from dytrack_platform.training.distributed import DistributedContext


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
    writer = Writer(config, job, settings["number"], latency, context, ray.train.report)
    worker.train(config, writer.clock, context, writer=writer)

"""Samples per second under Ray Train against plain loops with the same model and data.

    python -m tests.benchmarks.training [--rounds 3] [--steps 30] [--batch 16]

Five arms take turns, each in processes of its own, with one thread for each worker and the variant
``test`` on synthetic clips:

- ``bare``        a loop of forward, backward, clip and step in one process, and nothing else;
- ``bare_bf16``   the same in bf16;
- ``ray1``        ``dytrack train`` with one worker;
- ``torchrun2``   the bare loop in two processes under ``torchrun`` with DistributedDataParallel;
- ``ray2``        ``dytrack train`` with two workers.

Speed is steady state: the first steps and the last checkpoint are left out. Start-up is from the
call of ``train`` to the first step, with Ray up already; Ray's own start is given beside it. The
last line is one JSON object; ratios are medians over the rounds of ratios within a round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WARM = 5
ARMS = ("bare", "ray1", "bare_bf16", "torchrun2", "ray2")


def recipe(given, **changes):
    """The experiment of every arm."""
    from dytrack_platform.config import resolve

    values = {
        "name": "benchmark",
        "model": {"variant": "test"},
        "data": {
            "train": [{"path": given.clips}],
            "pairs_per_epoch": (given.steps + WARM) * given.batch,
            "validation_pairs": given.batch,
        },
        "train": {
            "epochs": 1,
            "batch_size": given.batch,
            "checkpoint_steps": 10_000,
            "report_steps": WARM,
            "sample_images": 0,
            "head_lr": 1e-3,
            "backbone_lr": 1e-3,
        },
    }
    return resolve(values, changes)


def bare(given, precision):
    """A plain loop, alone or as one of torchrun's processes."""
    import torch
    import torch.distributed as dist

    from dytrack_platform.datasets.loading.stream import PairStream
    from dytrack_platform.training import worker

    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    torch.set_num_threads(1)
    config = recipe(given, **{"train.workers": world})
    if world > 1:
        dist.init_process_group("gloo")
    state = worker.new_state(config)
    module = state.module
    if world > 1:
        module = torch.nn.parallel.DistributedDataParallel(module, static_graph=True)
    stream = PairStream(
        config.data, config.model, seed=0, batch_size=given.batch, rank=rank, world=world
    )
    began = 0.0
    for step, batch in enumerate(stream.batches(0)):
        if step == WARM:
            began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            losses = module(batch.template, batch.search, batch.boxes_cxcywh, step / 100)
        state.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(state.module.parameters(), config.train.max_grad_norm)
        state.optimizer.step()
    speed = given.steps * given.batch / (time.perf_counter() - began)
    stream.close()
    if rank == 0:
        print(json.dumps({"samples_per_s": speed}))
    if world > 1:
        dist.destroy_process_group()


def under_ray(given, workers):
    """The program itself."""
    from dytrack_platform.experiment.cluster import session
    from dytrack_platform.experiment.train.train import train

    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        config = recipe(given, **{"train.workers": workers, "train.storage": folder})
        reports = []
        before = time.time()
        with session.ray_session(cpus=2):
            began = time.time()
            train(config, reports.append, lambda sentence: None)
    first, last = reports[0], reports[-1]
    pairs = (last.step - first.step) * given.batch
    print(
        json.dumps(
            {
                "samples_per_s": pairs / (last.at - first.at),
                "start_s": first.at - first.step * first.step_s - began,
                "ray_start_s": began - before,
                "data_wait": statistics.mean(r.data_wait for r in reports[1:]),
                "mfu": statistics.mean(r.mfu for r in reports[1:]),
            }
        )
    )


def measure(given, arm):
    """Run an arm in a process of its own; returns what it printed last."""
    words = ["tests.benchmarks.training", "--arm", arm, "--clips", given.clips]
    words += ["--steps", str(given.steps), "--batch", str(given.batch)]
    start = [sys.executable, "-m"]
    if arm == "torchrun2":
        start += ["torch.distributed.run", "--nproc-per-node=2", "--master-port=29613", "-m"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    began = time.perf_counter()
    done = subprocess.run(
        [*start, *words], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{arm}: {done.stderr[-3000:]}")
    found = json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])
    return {**found, "process_s": time.perf_counter() - began}


def compare(rounds):
    """Return medians, spreads and ratios of all rounds."""

    def each(arm, key="samples_per_s"):
        return [one[arm][key] for one in rounds]

    def ratio(first, second):
        ratios = [a / b for a, b in zip(each(first), each(second), strict=True)]
        return {
            "median": round(statistics.median(ratios), 3),
            "rounds": [round(r, 3) for r in ratios],
        }

    return {
        "samples_per_s": {
            arm: {
                "median": round(statistics.median(each(arm)), 1),
                "rounds": [round(speed, 1) for speed in each(arm)],
            }
            for arm in ARMS
        },
        "ray1_over_bare": ratio("ray1", "bare"),
        "ray2_over_torchrun2": ratio("ray2", "torchrun2"),
        "bf16_over_fp32": ratio("bare_bf16", "bare"),
        "start_s": {arm: [round(s, 1) for s in each(arm, "start_s")] for arm in ("ray1", "ray2")},
        "ray_start_s": [round(s, 1) for s in each("ray1", "ray_start_s")],
        "data_wait": {
            arm: [round(s, 4) for s in each(arm, "data_wait")] for arm in ("ray1", "ray2")
        },
        "mfu": {arm: [round(s, 3) for s in each(arm, "mfu")] for arm in ("ray1", "ray2")},
    }


def make_clips(folder):
    """Synthetic sequences, prepared without Ray."""
    from dytrack_platform.datasets.prepared.preparation import finish, plan_preparation
    from dytrack_platform.datasets.prepared.shards import write_shard
    from dytrack_platform.datasets.prepared.windows import ClipConfig
    from dytrack_platform.datasets.synthetic import SynthConfig, make

    look = SynthConfig(frames=(40, 40), width=320, height=240, target_side=(24.0, 80.0))
    make(folder, look, "train", 24)
    config = ClipConfig(search_size=128, frames=20)
    plan = plan_preparation("got10k", str(folder), "train", f"{folder}/clips", config)
    return str(finish(plan, {job.file: write_shard(job) for job in plan.missing}).folder)


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--steps", type=int, default=30)
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--arm", choices=ARMS)
    options.add_argument("--clips")
    given = options.parse_args()
    if given.arm is not None:
        if given.arm.startswith("ray"):
            under_ray(given, int(given.arm[-1]))
        else:
            bare(given, "bf16" if given.arm == "bare_bf16" else "fp32")
        return
    with tempfile.TemporaryDirectory(prefix="dyt") as folder:
        given.clips = make_clips(Path(folder))
        rounds = []
        for number in range(given.rounds):
            # The order turns, so that no arm always follows the same one.
            order = ARMS[number % len(ARMS) :] + ARMS[: number % len(ARMS)]
            rounds.append({arm: measure(given, arm) for arm in order})
            print(f"round {number + 1}: {rounds[-1]}", flush=True)
    print(json.dumps(compare(rounds)))


if __name__ == "__main__":
    main()

"""What exchanging gradients costs, measured on a shaped link, and what follows for many GPUs.

    python -m tests.benchmarks.scaling [--rates 100mbit 300mbit 1gbit] [--steps 6]

Needs root: two network namespaces stand for two hosts, and ``tc`` shapes what each sends. At every
rate it measures, with gloo:

1. all-reduces of several sizes, to which ``seconds = latency + traffic / bandwidth`` is fitted;
2. training steps of the variant ``tiny`` under DistributedDataParallel, and the same step without
   any exchange.

From 1 and the step without exchange the simulation below predicts 2; the ratio says how far it can
be trusted. The same simulation then gives the table of docs/scaling.md for ``base-full``, with
constants of GPUs and networks that were *not* measured here and stand in ``MACHINES``. The last
line is one JSON object.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

SIZES = (1 << 16, 1 << 19, 1 << 22, 1 << 24)
"""Bytes of the measured all-reduces."""
FIRST_BUCKET, BUCKET = 1 << 20, 25 << 20
"""DistributedDataParallel's own: gradients travel in pieces of these sizes."""
PORT = 29500


@dataclass(frozen=True)
class Machine:
    """A GPU and its links; not measured here."""

    name: str
    flops: float
    """FLOP/s that training reaches: the dense bf16 peak times 0.4."""
    inside: float
    """Bytes/s of an all-reduce among the GPUs of a node."""
    outside: float
    """Bytes/s that one node sends to others."""
    latency: float
    """Seconds that an all-reduce of nothing takes between two nodes."""


MACHINES = (
    Machine("8 H100 a node, 8 x 400 Gbit/s", 0.4 * 989e12, 300e9, 0.8 * 400e9, 20e-6),
    Machine("8 H100 a node, 100 Gbit/s", 0.4 * 989e12, 300e9, 0.8 * 12.5e9, 20e-6),
    Machine("1 A100 a node, 25 Gbit/s", 0.4 * 312e12, 0.8 * 3.1e9, 0.8 * 3.1e9, 20e-6),
)


def traffic(size, workers):
    """Bytes that a ring all-reduce of ``size`` bytes makes each worker send."""
    return 2 * (workers - 1) / workers * size


def step_time(forward, backward, gradient, exchange):
    """Simulate a step in seconds: buckets become ready during the backward pass and queue up.

    Args:
        forward, backward: Seconds of arithmetic.
        gradient: Bytes of all gradients.
        exchange: Gives the seconds that an all-reduce of some bytes takes.
    """
    sizes, left = [], gradient
    while left > 0:
        sizes.append(min(left, BUCKET if sizes else FIRST_BUCKET))
        left -= sizes[-1]
    ready = link_free = forward
    for size in sizes:
        ready += backward * size / gradient
        link_free = max(ready, link_free) + exchange(size)
    return max(link_free, ready)


def fit(points):
    """Fit ``seconds = latency + bytes / bandwidth`` by least squares on relative errors."""
    # Weighted by 1 / seconds, so that the small sizes decide about the latency.
    weights = [1 / seconds**2 for _, seconds in points]
    total = sum(weights)
    mean_x = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / total
    mean_y = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / total
    above = sum(w * (x - mean_x) * (y - mean_y) for w, (x, y) in zip(weights, points, strict=True))
    below = sum(w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, points, strict=True))
    slope = above / below
    return max(mean_y - slope * mean_x, 0.0), 1 / slope


def one_host(given):
    """Measure on one of the two hosts; the first one prints."""
    import torch
    import torch.distributed as dist

    from dytrack_model.config import VARIANTS
    from dytrack_platform.config import ExperimentConfig
    from dytrack_platform.training import worker

    torch.set_num_threads(1)
    address = f"tcp://{given.master}:{PORT}"
    dist.init_process_group("gloo", init_method=address, rank=given.rank, world_size=2)
    points = []
    for size in SIZES:
        tensor, times = torch.zeros(size // 4), []
        for _ in range(5):
            dist.barrier()
            began = time.perf_counter()
            dist.all_reduce(tensor)
            times.append(time.perf_counter() - began)
        points.append((traffic(size, 2), statistics.median(times[1:])))
    config = ExperimentConfig(name="scaling", model=VARIANTS["tiny"])
    state = worker.new_state(config)
    images = [torch.zeros(2, 3, side, side, dtype=torch.uint8) for side in (128, 256)]
    inputs = (*images, torch.full((2, 4), 0.5), 0.5)

    def step(module):
        """Return the seconds of the forward pass, and of all of it."""
        began = time.perf_counter()
        losses = module(*inputs)
        forward = time.perf_counter() - began
        state.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        return forward, time.perf_counter() - began

    alone, together = [], []
    module = torch.nn.parallel.DistributedDataParallel(state.module, static_graph=True)
    step(module)
    for _ in range(given.steps):  # by turns, so that both see the same machine
        dist.barrier()
        alone.append(step(state.module))
        dist.barrier()
        together.append(step(module)[1])
    if given.rank == 0:
        gradient = 4 * sum(p.numel() for p in state.module.parameters())
        forward = statistics.median(f for f, _ in alone)
        whole = statistics.median(t for _, t in alone)
        found = {"points": points, "forward": forward, "backward": whole - forward}
        print(json.dumps({**found, "gradient": gradient, "step": statistics.median(together)}))
    dist.destroy_process_group()


def measure(rate, given):
    """Measure at one rate between two hosts of their own."""
    from tests.cluster.hosts import Hosts

    with tempfile.TemporaryDirectory(prefix="dyt", dir="/tmp") as folder:
        hosts = Hosts(2, folder, rate=rate)
        try:
            command = [sys.executable, "-m", "tests.benchmarks.scaling"]
            command += ["--master", hosts.addresses[0], "--steps", given.steps]
            ranks = [
                hosts.start(rank, *command, "--rank", rank, log=f"{rank}.log") for rank in (0, 1)
            ]
            codes = [process.wait(240) for process in ranks]
            logs = [(Path(folder) / f"{rank}.log").read_text() for rank in (0, 1)]
            if any(codes):
                raise RuntimeError("\n".join(logs))
            found = json.loads([line for line in logs[0].splitlines() if line[:1] == "{"][-1])
        finally:
            hosts.close()
    latency, bandwidth = fit(found["points"])
    predicted = step_time(
        found["forward"],
        found["backward"],
        found["gradient"],
        lambda size: latency + traffic(size, 2) / bandwidth,
    )
    return {
        "rate": rate,
        "latency_ms": round(latency * 1e3, 2),
        "bandwidth_mb_s": round(bandwidth / 1e6, 1),
        "alone_s": round(found["forward"] + found["backward"], 3),
        "measured_s": round(found["step"], 3),
        "predicted_s": round(predicted, 3),
        "predicted_over_measured": round(predicted / found["step"], 2),
    }


def exchange_on(machine, gpus, per_node):
    """Return the seconds of an all-reduce: within each node, then between nodes."""
    nodes = max(1, gpus // per_node)

    def exchange(size):
        if gpus == 1:
            return 0.0
        within = traffic(size, min(gpus, per_node)) / machine.inside if per_node > 1 else 0.0
        across = traffic(size, nodes) / machine.outside if nodes > 1 else 0.0
        return machine.latency * (gpus - 1).bit_length() + within + across

    return exchange


def table(batch=128):
    """Return the rows of docs/scaling.md: ``base-full`` with one batch over 1 to 64 GPUs."""
    from dytrack_model.config import VARIANTS
    from dytrack_model.network import DyTrackNetwork
    from dytrack_platform.training.metrics import pair_gflop

    network = DyTrackNetwork(VARIANTS["base"])
    work = batch * pair_gflop(network) * 1e9
    gradient = 4 * sum(parameter.numel() for parameter in network.parameters())
    rows = []
    for machine in MACHINES:
        per_node = 8 if machine.name.startswith("8") else 1
        single = work / machine.flops
        for gpus in (1, 2, 4, 8, 16, 32, 64):
            exchange = exchange_on(machine, gpus, per_node)
            arithmetic = single / gpus
            seconds = step_time(arithmetic / 3, 2 * arithmetic / 3, gradient, exchange)
            rows.append(
                {
                    "machine": machine.name,
                    "gpus": gpus,
                    "tflop": round(work / gpus / 1e12, 2),
                    "sent_mb": round(traffic(gradient, gpus) / 1e6),
                    "ms": round(seconds * 1e3, 1),
                    "efficiency": round(single / gpus / seconds, 2),
                    "pairs_per_s": round(batch / seconds),
                    "hours": round(300 * 60_000 / batch * seconds / 3600, 2),
                }
            )
    return rows


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rates", nargs="*", default=["100mbit", "300mbit", "1gbit"])
    options.add_argument("--steps", type=int, default=6)
    options.add_argument("--rank", type=int)
    options.add_argument("--master")
    given = options.parse_args()
    if given.rank is not None:
        one_host(given)
        return
    rows = table()
    print("| machine | GPUs | TFLOP a GPU | sent MB a GPU | step ms | efficiency | pairs/s | h |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    measured = []
    if os.geteuid() == 0:
        for rate in given.rates:
            measured.append(measure(rate, given))
            print(measured[-1], flush=True)
    else:
        print("not root: no link was measured")
    print(json.dumps({"measured": measured, "base_full": rows}))


if __name__ == "__main__":
    main()

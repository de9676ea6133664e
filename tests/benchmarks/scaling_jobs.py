"""How long preparing, searching and evaluating take on 1 to 64 nodes, simulated.

    python -m tests.benchmarks.scaling_jobs

Work is a list of pieces (shards, trials, evaluations) that free workers take one after the other,
as Ray gives them out; beside them stand what only the driver does and what storage delivers.
Constants that were measured name the place in docs/LOG.md; the others are marked as assumed. Two
measured runs are simulated too, to say how far it can be trusted. No Ray; it takes a second.
"""

import heapq
import random

NODES = (1, 2, 4, 8, 16, 32, 64)
CORES = 16
"""Of a node; assumed."""

# Measured, docs/LOG.md, two cores of an AMD EPYC.
FRAMES_A_CORE = 732 / 2
"""Frames of 640x480 prepared by a core in a second ("Ingest, where the rest goes")."""
DRIVER_S_A_SHARD = 0.04 * 1024 / 732
"""Driver's time for a shard: it took 4 % of a core while 732 frames/s were prepared (likewise)."""
PIPELINE_S = 15.3
"""Start of Ray and of the first pipeline ("Ingest once more")."""
PLAN_S = {"GOT-10k": 5.1 * 9335 / 3000, "TrackingNet": 5.1 * 30132 / 3000, "COCO": 20.0}
"""Planning: 5.1 s for 3,000 sequences ("Planning a large preparation"), COCO whole."""
PLAN_S["LaSOT"] = 5.1 * 1120 / 3000 * 2512 / 150
"""By boxes: its sequences are longer."""
TRIAL_OVERHEAD_S = 1.5
"""What a trial takes beside steps and scoring, median ("Searches in two levels")."""
STOPPED_EARLY = 9 / 24
"""Share of trials that end after their first epoch (likewise)."""
EVALUATED_A_CORE = 14352 / 111.6
"""Frames tracked by a core in a second, variant test at full depth ("Evaluation over two workers,
alone on the machine")."""
WORKERS_START_S = 3.4
"""From the same entry's 3,583 frames: 30 s with one worker, 1.73 times as fast with two."""
JOB_S = 9.0
"""A submitted job until its command runs, imports included; assumed from 7 to 10 s seen."""

# Simulated or assumed.
STEP_S = 0.0672
"""A step of base-full at batch 128 on one H100 (docs/scaling.md, simulated)."""
HD = 3.0
"""A frame of 1280x720 costs as much more as it has pixels: too much, for only decoding grows."""
STORE_B_S = 1e9
FRAME_BYTES = 65e3
"""1.2 TB over 18.6 million frames."""


def makespan(pieces: list[float], workers: int) -> float:
    """Return when the last of some pieces is done, each taken by whoever is free first."""
    free = [0.0] * workers
    for piece in pieces:
        heapq.heappush(free, heapq.heappop(free) + piece)
    return max(free)


def frames_read() -> dict[str, tuple[float, float]]:
    """Return (frames, cost of one) by data set: 16 frames of each 200 are read."""
    clips = {"LaSOT": 1120 * 13, "GOT-10k": 9335, "TrackingNet": 30132 * 3}
    cost = {"LaSOT": HD, "GOT-10k": HD, "TrackingNet": HD}
    found = {name: (16.0 * count, cost[name]) for name, count in clips.items()}
    return found | {"COCO": (860001.0, 1.0)}


def preparation(nodes: int) -> dict[str, float]:
    """Return minutes of each part of preparing the four training sets, one command each."""
    cores, work, driver, plan, store = nodes * CORES, 0.0, 0.0, 0.0, 0.0
    for name, (frames, cost) in frames_read().items():
        shards = [1024 * cost / FRAMES_A_CORE] * round(frames / 1024)
        work += makespan(shards, cores)
        driver += len(shards) * DRIVER_S_A_SHARD
        plan += PLAN_S[name] + PIPELINE_S
        images = 118287.0 if name == "COCO" else frames
        store += images * (160e3 if name == "COCO" else FRAME_BYTES) / STORE_B_S
    total = plan + max(work, driver, store)
    seconds = {"work": work, "driver": driver, "store": store, "total": total}
    return {name: value / 60 for name, value in seconds.items()}


def search(gpus: int, trials: int = 200, epochs: int = 10, pairs: int = 60000) -> float:
    """Return hours of a search whose trials have one GPU each."""
    rng = random.Random(0)
    epoch = pairs / 128 * STEP_S
    pieces = [
        (epoch if rng.random() < STOPPED_EARLY else epochs * epoch) + TRIAL_OVERHEAD_S
        for _ in range(trials)
    ]
    return makespan(pieces, gpus) / 3600


def evaluation(nodes: int, checkpoints: int = 1000, frames: int = 21007) -> float:
    """Return hours of evaluating checkpoints on GOT-10k's 180 videos, a node for each at a time."""
    rng = random.Random(0)
    share = [rng.uniform(0.5, 1.5) for _ in range(180)]
    seconds = [frames / EVALUATED_A_CORE * part / sum(share) for part in share]
    one = JOB_S + WORKERS_START_S + makespan(seconds, CORES)
    return makespan([one] * checkpoints, nodes) / 3600


def main() -> None:
    print("| nodes | prepare: shards min | driver min | store min | all min |", end="")
    print(" 200 trials, 8 GPUs a node, h | 1,000 evaluations, h |")
    print("|---|---|---|---|---|---|---|")
    for nodes in NODES:
        p = preparation(nodes)
        row = [p["work"], p["driver"], p["store"], p["total"], search(8 * nodes), evaluation(nodes)]
        print(f"| {nodes} | " + " | ".join(f"{value:.2f}" for value in row) + " |")
    print(f"search on one GPU: {search(1):.1f} h")
    sequences = [400 / EVALUATED_A_CORE] * 36
    ratio = makespan(sequences, 1) / makespan(sequences, 2)
    print(f"check, 36 sequences with two workers: {ratio:.2f} times (measured 1.83 to 2.02)")
    short = [150 / EVALUATED_A_CORE] * 24
    ratio = makespan(short, 1) / (makespan(short, 2) + WORKERS_START_S)
    print(f"check, 24 short sequences: {ratio:.2f} times (measured 1.58 to 1.83)")


if __name__ == "__main__":
    main()

"""How well do inherited weights rank placements of exits as trainings of their own do?

    python -m tests.benchmarks.search_ranking OUT --seeds 0 1 --jobs 2

On made sequences: every placement of up to three exits among the depths of one small tracker is
trained on its own, once for each seed; one supernet (placements drawn at each step) and one
plain tracker with all exits are trained as long. Each placement is scored by its hypervolume on
the same held-out pairs: with its own weights, with those of the supernet, and as mode post-hoc
does, from what the plain tracker's exits say. Printed are rank correlations (Spearman), among them
that of two seeds of the same trainings, above which nothing can be expected; and regrets: what the
placement that is best by inherited weights loses to the best one, as a share of it. The last line
is JSON. A run that was ended goes on where it stopped.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import yaml

from dytrack_model import checkpoint
from dytrack_pipelines.commands.demo import difficulty
from dytrack_platform.config import resolve
from dytrack_platform.datasets.prepared.preparation import finish, plan_preparation
from dytrack_platform.datasets.prepared.shards import write_shard
from dytrack_platform.datasets.prepared.windows import ClipConfig
from dytrack_platform.datasets.synthetic import make
from dytrack_platform.experiment.search.points import threshold_front as solving
from dytrack_platform.experiment.search.points.latency import costs_of
from dytrack_platform.experiment.search.running import full_depth
from dytrack_platform.experiment.search.trials import supernet
from dytrack_platform.experiment.search.trials.trial import pair_cache

DEVICE = torch.device("cpu")


def recipe(options, out, exits):
    return {
        "name": "ranked",
        "model": {"variant": "test", "depth": options.depth, "exits": list(exits)},
        "distillation": {"feature": 0.1, "prediction": 0.1, "start": 0.5, "ramp": 0.2},
        "data": {
            "train": [{"path": str(out / "clips-train")}],
            "validation": [{"path": str(out / "clips-val")}],
            "pairs_per_epoch": options.pairs,
            "validation_pairs": 1536,
            "max_gap": 60,
            "pairs_per_clip": 8,
        },
        "train": {
            "epochs": 1,
            "batch_size": 32,
            "head_lr": 2e-3,
            "backbone_lr": 2e-3,
            "max_grad_norm": 1.0,
            "schedule": "cosine",
            "warmup": 0.05,
            "precision": "auto",
            "sample_images": 0,
            "storage": str(out / "runs"),
        },
        "search": {
            "space": {"model.exits": {"placements": {"count": [1, 3]}}},
            "reference": {"iou": 0.1},
        },
    }


def make_clips(out):
    """Make the sequences and cut the clips of both splits, once."""
    for split, count in (("train", 200), ("val", 60)):
        folder = out / f"clips-{split}"
        if folder.exists():
            continue
        make(out / "made", difficulty(), split, count)
        plan = plan_preparation(
            "got10k", str(out / "made"), split, str(folder), ClipConfig(search_size=128)
        )
        finish(plan, {job.file: write_shard(job) for job in plan.jobs})


def train(options, out, name, exits, seed, **changes):
    """Train one tracker in a process of its own, unless it is there; returns its folder."""
    folder = out / "runs" / name
    if not (folder / "tracker").exists():
        values = recipe(options, out, exits)
        values["name"], values["seed"] = name, seed
        values["train"] |= changes
        file = out / f"{name}.yaml"
        file.write_text(yaml.safe_dump(values))
        command = [sys.executable, "-m", "dytrack_pipelines.cli", "train", str(file), "--local"]
        with (out / f"{name}.log").open("w") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            subprocess.run(command, stdout=log, stderr=log, env=environment, check=True)
        print("trained", name, flush=True)
    return folder / "tracker"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--depth", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=12800, help="of every training")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at the same time")
    options = parser.parse_args()
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    make_clips(out)
    config = resolve(recipe(options, out, [options.depth]))
    every, placements = supernet.candidates(config)
    wanted = [("plain", every, 0, {}), ("supernet", every, 0, {"sampled_placements": 1})]
    for seed in options.seeds:
        wanted += [(named(exits, seed), exits, seed, {}) for exits in placements]
    with ThreadPoolExecutor(options.jobs) as pool:
        jobs = {
            name: pool.submit(train, options, out, name, exits, seed, **changes)
            for name, exits, seed, changes in wanted
        }
        networks = {name: checkpoint.load(job.result()).network for name, job in jobs.items()}
    torch.set_num_threads(2)
    reference = solving.reference_point(config.search, full_depth(costs_of(networks["plain"])))

    def score(network, chosen):
        rows = supernet.score(config, network, chosen, reference, DEVICE)
        return np.array([one.hypervolume for one in rows])

    columns = {
        f"seed {seed}": np.concatenate(
            [score(networks[named(exits, seed)], [exits]) for exits in placements]
        )
        for seed in options.seeds
    }
    columns["supernet"] = score(networks["supernet"], placements)
    plain = networks["plain"]
    cache = pair_cache(resolve(recipe(options, out, every)), plain, DEVICE)
    columns["post-hoc"] = np.array(
        [
            solving.solve(cache, [exits], costs_of(plain), config.search, reference).hypervolume
            for exits in placements
        ]
    )
    report(placements, columns, [f"seed {seed}" for seed in options.seeds])


def named(exits, seed):
    return f"{'-'.join(map(str, exits))}-s{seed}"


def spearman(one, other):
    ranks = [np.argsort(np.argsort(values)).astype(float) for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def report(placements, columns, seeds):
    own = np.mean([columns[name] for name in seeds], axis=0)
    for number in np.argsort(-own):
        values = "  ".join(f"{name} {rows[number]:.5f}" for name, rows in columns.items())
        print(f"{'-'.join(map(str, placements[number])):>8}  {values}")
    result = {"placements": len(placements), "spearman": {}, "regret": {}}
    if len(seeds) > 1:
        result["spearman"]["two seeds"] = spearman(columns[seeds[0]], columns[seeds[1]])
        best = columns[seeds[0]].argmax()
        result["regret"]["two seeds"] = float(1 - columns[seeds[1]][best] / columns[seeds[1]].max())
    for name in ("supernet", "post-hoc"):
        result["spearman"][name] = spearman(columns[name], own)
        result["regret"][name] = float(1 - own[columns[name].argmax()] / own.max())
    print(json.dumps(result))


if __name__ == "__main__":
    main()

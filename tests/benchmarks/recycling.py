"""Recycling and self-distillation, trained for the same steps on the same synthetic sequences.

    python -m tests.benchmarks.recycling [--folder runs/recycling] [--steps 100] [--workers 1]

One tracker without recycling or distillation (variant ``test``, three exits) learns to match on 40
synthetic sequences and is the start of all others: backbone, norms and heads; recycling,
decisioners and projections are new. Every schema, with distillation off and on, then trains for the
same steps on the same pairs, and is measured on 12 sequences that no training shows: on fixed
jittered pairs, and in closed loop at every fixed exit. A seed makes the new parts and the order of
pairs.
``--decisioners token map`` and ``--absent 0 0.25`` compare these too.

Each finished run is appended to ``runs.jsonl`` in the folder; the same command again goes on
with the runs that are missing. Prints tables, mean ± standard deviation over seeds, and one JSON
object on its last line.
"""

import argparse
import itertools
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import cv2
import numpy as np
import torch

from dytrack_model import checkpoint
from dytrack_model.config import LossConfig, ModelConfig
from dytrack_model.cost import exit_gmacs
from dytrack_model.errors import CheckpointError
from dytrack_model.images import RGB
from dytrack_model.network import DyTrackNetwork
from dytrack_model.online import Tracker
from dytrack_model.policy import FixedExit
from dytrack_model.pretrained import files
from dytrack_model.thresholds import exits_taken, quantile_thresholds
from dytrack_pipelines.commands.demo import difficulty
from dytrack_platform.confidence import calibrate
from dytrack_platform.config import ExperimentConfig, resolve
from dytrack_platform.datasets import readers
from dytrack_platform.datasets.loading.stream import PairStream
from dytrack_platform.datasets.prepared.preparation import finish, plan_preparation
from dytrack_platform.datasets.prepared.shards import write_shard
from dytrack_platform.datasets.prepared.windows import ClipConfig
from dytrack_platform.datasets.synthetic import make
from dytrack_platform.evaluation.scoring.metrics import columns, overlaps
from dytrack_platform.training import loop, validation, worker
from dytrack_platform.training.callbacks import Callbacks
from dytrack_platform.training.objective import TrainModule

SCHEMAS = ("none", "add", "concat", "cascade")
SWITCHES = ("off", "on")
TRAINING, UNSEEN = 40, 12
PAIRS = 384
BATCH = 32
CPU = torch.device("cpu")
FRAMES = 30
"""Frames of each unseen sequence that are tracked in closed loop."""


def prepare(folder: Path) -> dict[str, str]:
    """Make both splits and their clips, or find them made; returns the folders of the clips."""
    found = {}
    for split, count in (("train", TRAINING), ("test", UNSEEN)):
        make(folder / "made", difficulty(), split, count, workers=1)
        plan = plan_preparation(
            "got10k", str(folder / "made"), split, str(folder / "clips"), ClipConfig(search_size=96)
        )
        done = finish(plan, {job.file: write_shard(job) for job in plan.missing})
        found[split] = done.folder
    return found


def recipe(cell: dict, clips: dict[str, str]) -> ExperimentConfig:
    """Return the experiment of a cell; distillation that is on has the defaults."""
    distillation = {} if cell["distillation"] == "on" else {"feature": 0.0, "prediction": 0.0}
    return resolve(
        {
            "name": "recycling",
            "seed": cell["seed"],
            "model": {
                "variant": "test",
                "template_size": 48,
                "search_size": 96,
                "recycling": cell["recycling"],
                "decisioner": cell["decisioner"],
            },
            "loss": {"absent": cell["absent"]},
            "distillation": distillation,
            "data": {
                "train": [{"path": clips["train"]}],
                "validation": [{"path": clips["test"]}],
                "pairs_per_epoch": BATCH * cell["steps"],
                "validation_pairs": PAIRS,
                "max_gap": 60,
            },
            "train": {
                "epochs": 1,
                "batch_size": BATCH,
                "head_lr": cell["lr"],
                "backbone_lr": cell["lr"],
                "max_grad_norm": 1.0,
                "schedule": "cosine",
                "warmup": 0.05,
                "precision": "bf16",
                "checkpoint_steps": 1_000_000,
            },
        }
    )


def judge(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Compare (N,) predicted with true IoU."""
    found = calibrate(predicted, true)
    return {
        "iou": float(true.mean()),
        "auroc": found.auroc,
        "calibration": found.expected_error,
        "correlation": float(np.corrcoef(predicted, true)[0, 1]),
    }


def follow(network, root: Path) -> list[dict[str, float]]:
    """Track the unseen sequences at every fixed exit."""
    sequences = list(readers.read("got10k", str(root / "made"), "test"))
    exits = []
    for index in range(network.exit_count):
        predicted, true, means = [], [], []
        for sequence in sequences:
            tracker = Tracker(network, FixedExit(index))
            truth = sequence.boxes_xywh[:FRAMES]
            boxes, scores = truth.copy(), np.ones(len(truth))
            images = itertools.islice(sequence.frames.iterate(), FRAMES)
            for frame, image in enumerate(images):
                if frame == 0:
                    tracker.start(RGB(image), truth[0])
                    continue
                track = tracker.step(RGB(image))
                boxes[frame], scores[frame] = track.box_xywh, track.predicted_iou
            seen = sequence.visible[:FRAMES].copy()
            seen[0] = False  # given, not found
            found = overlaps(columns(boxes), columns(truth))[seen]
            means.append(found.mean())
            predicted.append(scores[seen])
            true.append(found)
        pooled = judge(np.concatenate(predicted), np.concatenate(true))
        exits.append(pooled | {"iou": float(np.mean(means))})
    return exits


class NoWriter:
    """Saves nothing: a cell is scored where it was trained."""

    def checkpoint(self, state, progress) -> None:
        pass

    def sample_images(self, state) -> None:
        pass


def train(cell: dict, clips: dict[str, str], start: Path | None = None) -> TrainModule:
    """Train one cell in this process, from nothing or from a start."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    config = recipe(cell, clips)
    state = worker.new_state(config)
    if start is not None:
        grow(state.module.network, start)
    stream = PairStream(config.data, config.model, seed=cell["seed"], batch_size=BATCH)
    loop.run(config, state, state.module, stream, Callbacks(), NoWriter(), CPU)
    stream.close()
    return state.module


def train_start(steps: int, folder: Path, clips: dict[str, str]) -> Path:
    """Train the start of all cells, or find it trained."""
    path = folder / f"start-{steps}"
    cell = {"seed": 0, "steps": steps, "lr": 2e-3, "recycling": "none", "distillation": "off"}
    if not path.exists():
        trained = train({**cell, "decisioner": "token", "absent": 0.0}, clips)
        checkpoint.save(path, trained.network)
    return path


def grow(network: DyTrackNetwork, start: Path) -> None:
    """Copy what the start knows of finding a target; what predicts its IoU is new."""
    tensors = files.read_tensors(start / checkpoint.WEIGHTS)
    kept = {name: value for name, value in tensors.items() if "decisioners" not in name}
    found = network.load_state_dict(kept, strict=False)
    if found.unexpected_keys:
        raise CheckpointError(f"{start}: not a start of this network: {found.unexpected_keys[0]}")


def run(cell: dict, folder: Path, clips: dict[str, str], start: Path) -> dict:
    """Train one cell from the start and measure it."""
    began = time.process_time()
    module = train(cell, clips, start)
    network = module.network
    # Validation pairs are those of seed 0, whatever the training's seed.
    config = recipe({**cell, "seed": 0}, clips)
    pairs = PairStream(config.data, config.model, seed=0, batch_size=BATCH, subset="validation")
    scores = validation.score(module, pairs.batches(0), CPU)
    pairs.close()
    predicted, true = (part.double().numpy() for part in scores)
    said = predicted.T
    taken = exits_taken(said, quantile_thresholds(said, [1 / 3] * len(true)))
    chosen = float(np.take_along_axis(true, taken[None], axis=0).mean())
    shares = np.bincount(taken, minlength=len(true)) / len(taken)
    return {
        **cell,
        "pairs": [judge(p, t) for p, t in zip(predicted, true, strict=True)],
        # By the score, at random with the same shares of exits, and by the truth.
        "chosen": chosen,
        "random": float(shares @ true.mean(axis=1)),
        "oracle": float(true.max(axis=0).mean()),
        "closed": follow(network.eval(), folder),
        "gmacs": exit_gmacs(network),
        "cpu_s": round(time.process_time() - began, 1),
    }


def spread(values: list[float], digits: int = 3) -> str:
    """Return mean ± standard deviation over seeds."""
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return "-"
    text = (
        f"{np.mean(known):.{digits}f} ± {np.std(known, ddof=1) if len(known) > 1 else 0:.{digits}f}"
    )
    return text.replace("0.", ".")


def tables(rows: list[dict]) -> str:
    """Show the cells as Markdown."""
    kinds = (("pairs", "iou"), ("closed", "iou"), ("pairs", "auroc"), ("pairs", "calibration"))
    lines = []
    for where, what in kinds:
        exits = len(rows[0]["pairs"])
        head = " | ".join(f"exit {index + 1}" for index in range(exits))
        lines += [
            f"\n{what}, {where}",
            f"| decisioner | absent | schema | distillation | {head} | mean |",
        ]
        lines += ["|" + "---|" * (exits + 5)]
        for key, cell in cells(rows):
            each = [[run[where][index][what] for run in cell] for index in range(exits)]
            mean = [float(np.mean(values)) for values in zip(*each, strict=True)]
            shown = " | ".join(spread(values) for values in [*each, mean])
            lines.append(f"| {' | '.join(key)} | {shown} |")
    names = ("chosen", "random", "oracle")
    lines += ["\nexit chosen on pairs, equal shares, and GMACs of each exit"]
    lines += [
        "| decisioner | absent | schema | distillation | score | random | oracle | GMACs | mean |"
    ]
    lines += ["|" + "---|" * 9]
    for key, cell in cells(rows):
        shown = " | ".join(spread([run[name] for run in cell]) for name in names)
        costs = cell[0]["gmacs"]
        shown += f" | {' '.join(f'{cost:.4f}' for cost in costs)} | {np.mean(costs):.4f}"
        lines.append(f"| {' | '.join(key)} | {shown} |")
    return "\n".join(lines)


def cells(rows: list[dict]) -> list[tuple[tuple[str, ...], list[dict]]]:
    """Group runs that differ in their seed only."""
    grouped: dict[tuple[str, ...], list[dict]] = {}
    for row in rows:
        key = (row["decisioner"], f"{row['absent']:g}", row["recycling"], row["distillation"])
        grouped.setdefault(key, []).append(row)
    return list(grouped.items())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--folder", type=Path, default=Path("runs/recycling"))
    options.add_argument("--steps", type=int, default=100)
    options.add_argument("--start-steps", type=int, default=400)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--workers", type=int, default=1)
    options.add_argument("--schemas", nargs="+", default=SCHEMAS)
    options.add_argument("--distillation", nargs="+", default=SWITCHES)
    options.add_argument("--decisioners", nargs="+", default=(ModelConfig().decisioner,))
    options.add_argument("--absent", nargs="+", type=float, default=(LossConfig().absent,))
    given = options.parse_args()
    clips = prepare(given.folder)
    folder = given.folder
    order = itertools.product(
        range(given.seeds), given.absent, given.decisioners, given.schemas, given.distillation
    )
    wanted = [
        {
            "steps": given.steps,
            "start_steps": given.start_steps,
            "seed": seed,
            "lr": 1e-3,
            "absent": absent,
            "decisioner": decisioner,
            "recycling": schema,
            "distillation": switch,
        }
        for seed, absent, decisioner, schema, switch in order
    ]
    record = folder / "runs.jsonl"
    lines = record.read_text().splitlines() if record.exists() else []
    done = [json.loads(line) for line in lines]
    missing = [cell for cell in wanted if not any(cell.items() <= row.items() for row in done)]
    with ProcessPoolExecutor(given.workers, multiprocessing.get_context("spawn")) as pool:
        start = pool.submit(train_start, given.start_steps, folder, clips).result()
        futures = [pool.submit(run, cell, folder, clips, start) for cell in missing]
        for number, future in enumerate(as_completed(futures), 1):
            row = future.result()
            done.append(row)
            with record.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{number}/{len(missing)} {row}", flush=True)
    # One row for each cell, should two commands have run the same one.
    rows = [next(row for row in done if cell.items() <= row.items()) for cell in wanted]
    print(tables(rows))
    print(json.dumps({"runs": len(rows), "cells": len(cells(rows)), "record": str(record)}))


if __name__ == "__main__":
    main()

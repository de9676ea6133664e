"""Whole searches in mode full on made sequences: their time, their fronts, and samplers compared.

    python -m tests.benchmarks.search_trials FOLDER [--samplers tpe random] [--seeds 0 1 2]

Makes the sequences of the demonstration and prepares them once, then searches once for every
sampler and seed, 24 trials each. The seed is that of the recipe, so a pair of searches starts its
trainings from the same weights. The last line is JSON.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from dytrack_pipelines.commands.demo import difficulty
from dytrack_platform.datasets.synthetic import make

RECIPE = """
name: {name}
seed: {seed}
model: {{variant: test}}
distillation: {{feature: 0.1, prediction: 0.1, start: 0.5, ramp: 0.2}}
data:
  train: [{{path: {clips}}}]
  pairs_per_epoch: {pairs}
  validation_pairs: 256
  max_gap: 60
  pairs_per_clip: 8
train:
  batch_size: 32
  workers: 1
  head_lr: 2.0e-3
  backbone_lr: 2.0e-3
  max_grad_norm: 1.0
  schedule: cosine
  warmup: 0.05
  storage: {folder}
search:
  space:
    model.exits: {{placements: {{count: [1, 3]}}}}
    model.recycling: {{choice: [none, cascade]}}
    distillation.feature: {{loguniform: [0.01, 1.0]}}
    train.head_lr: {{loguniform: [3.0e-4, 6.0e-3]}}
  reference: {{iou: 0.1, gmacs: 0.16}}
  trials: {trials}
  max_concurrent: 2
  epochs: {epochs}
  sampler: {sampler}
"""


def dytrack(*arguments: str) -> None:
    command = [str(Path(sys.executable).with_name("dytrack")), *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samplers", nargs="+", default=["tpe"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=1024, help="of an epoch")
    given = parser.parse_args()
    folder = given.folder.resolve()
    sequences, clips = folder / "sequences", folder / "clips"
    make(sequences, difficulty(), "train", 120)
    source = ["--dataset", "got10k", "--root", str(sequences), "--split", "train"]
    dytrack("prepare", *source, "--out", str(clips), "--search-size", "128")
    rows = []
    for seed in given.seeds:
        for sampler in given.samplers:
            name = f"{sampler}-{seed}"
            recipe = folder / f"{name}.yaml"
            filled = {
                **{key: getattr(given, key) for key in ("trials", "epochs", "pairs")},
                "name": name,
                "seed": seed,
                "sampler": sampler,
                "clips": clips,
                "folder": folder / "runs",
            }
            recipe.write_text(RECIPE.format(**filled))
            before = time.monotonic()
            dytrack("search", str(recipe), "--out", str(folder / "searches" / name))
            seconds = time.monotonic() - before
            rows.append({"name": name, "seconds": round(seconds), **of(folder / "searches" / name)})
            print(json.dumps(rows[-1]), flush=True)
    print(json.dumps({"searches": rows}))


def of(search: Path) -> dict[str, object]:
    """Return what a finished search found."""
    record = json.loads((search / "search.json").read_text())
    front = json.loads((search / "front.json").read_text())
    best = [max(r["hypervolume"] for r in t["reports"]) for t in record["trials"] if t["reports"]]
    return {
        "ended": {
            s: [t["status"] for t in record["trials"]].count(s)
            for s in sorted({t["status"] for t in record["trials"]})
        },
        "best_hypervolume": round(max(best), 5),
        "members": sum(member["on_front"] for member in front),
        "iou": [round(m["iou"], 3) for m in front if m["on_front"]],
        "gmacs": [round(m["gmacs"], 3) for m in front if m["on_front"]],
    }


if __name__ == "__main__":
    main()

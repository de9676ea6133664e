"""How much faster an evaluation is over two workers than over one.

    python -m tests.benchmarks.evaluation [--sequences 24] [--frames 150] [--rounds 3]

Both evaluate an untrained tracker of the variant ``test`` at full depth, with one thread, on the
same synthetic sequences: images are read, tracked, stored, scored, and the report is written. Ray
is up before the clock runs, the start of the workers is counted. One worker and two take turns; the
median of the rounds' ratios counts. Tracking alone, without scoring and report, is given beside
it. The last line is JSON.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from dytrack_platform.experiment.cluster.session import ray_session  # isort: skip (Ray reads its settings)

import torch

from dytrack_model.checkpoint import save
from dytrack_model.config import VARIANTS
from dytrack_model.network import DyTrackNetwork
from dytrack_platform.datasets import readers
from dytrack_platform.datasets.synthetic import SynthConfig, make
from dytrack_platform.experiment.evaluate.evaluate import Evaluation, evaluate


def run(model: Path, sequences, workers: int) -> tuple[float, float]:
    """Evaluate into an empty folder; return seconds in all and until the last sequence was done."""
    done = []
    with tempfile.TemporaryDirectory() as out:
        job = Evaluation(
            dataset="got10k",
            out=Path(out),
            model=str(model),
            points=("full",),
            baselines=(),
            workers=workers,
        )
        began = time.perf_counter()
        evaluate(job, sequences, report=lambda progress: done.append(time.perf_counter()))
        return time.perf_counter() - began, done[-1] - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=24)
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, ray_session(cpus=2):
        torch.manual_seed(0)
        model = save(Path(place) / "model", DyTrackNetwork(VARIANTS["test"]), [])
        root = Path(place) / "data"
        knobs = SynthConfig(frames=(asked.frames * 2 // 3, asked.frames * 4 // 3))
        make(root, knobs, "test", asked.sequences)
        sequences = list(readers.read("got10k", str(root), "test"))
        rounds = []
        for _ in range(asked.rounds):
            one, two = run(model, sequences, 1), run(model, sequences, 2)
            rounds.append({"one": one, "two": two})
            print(f"1 worker {one[0]:.2f} s, 2 workers {two[0]:.2f} s: {one[0] / two[0]:.2f} x")
    whole = statistics.median(r["one"][0] / r["two"][0] for r in rounds)
    tracking = statistics.median(r["one"][1] / r["two"][1] for r in rounds)
    print(f"whole evaluation {whole:.2f} times as fast, tracking alone {tracking:.2f}")
    print(
        json.dumps(
            {
                "benchmark": "evaluation",
                "frames": sum(len(sequence) for sequence in sequences),
                "rounds": rounds,
                "times_faster": whole,
                "times_faster_tracking": tracking,
            }
        )
    )


if __name__ == "__main__":
    main()

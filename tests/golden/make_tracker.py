"""Train the small tracker that tests run: ``python -m tests.golden.make_tracker``.

Everything is made here: sequences, clips, weights; one thread, seeded, about five minutes. Run it
again when the network's tensors change; tests that need a tracker which really tracks read
``tests/golden/tracker``.
"""

import tempfile
from pathlib import Path

import torch

from dytrack_model import checkpoint
from dytrack_pipelines.commands.demo import difficulty
from dytrack_platform.config import resolve
from dytrack_platform.datasets.prepared.preparation import finish, plan_preparation
from dytrack_platform.datasets.prepared.shards import write_shard
from dytrack_platform.datasets.prepared.windows import ClipConfig
from dytrack_platform.datasets.synthetic import make
from dytrack_platform.training import worker
from dytrack_platform.training.callbacks import Callbacks

TRACKER = Path(__file__).with_name("tracker")


class Shown(Callbacks):
    """Prints the loss as it falls."""

    def progress(self, progress):
        print(
            f"step {progress.step}/{progress.steps} loss {progress.losses['loss']:.3f}", flush=True
        )


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="dytrack-") as name:
        folder = Path(name)
        make(folder / "made", difficulty(), "train", 80, workers=1)
        clips = ClipConfig(search_size=128)
        plan = plan_preparation("got10k", str(folder / "made"), "train", str(folder / "c"), clips)
        finish(plan, {job.file: write_shard(job) for job in plan.jobs})
        config = resolve(
            {
                "name": "golden",
                "model": {"variant": "test"},
                "distillation": {"feature": 0.0, "prediction": 0.0},
                "data": {
                    "train": [{"path": str(folder / "c")}],
                    "pairs_per_epoch": 12_800,
                    "validation_pairs": 256,
                    "max_gap": 60,
                },
                "train": {
                    "epochs": 1,
                    "batch_size": 32,
                    "head_lr": 2e-3,
                    "backbone_lr": 2e-3,
                    "max_grad_norm": 1.0,
                    "schedule": "cosine",
                    "warmup": 0.05,
                    "precision": "bf16",
                },
            }
        )
        state = worker.train(config, Shown())
        metrics, points = worker.validate(config, state.module, torch.device("cpu"))
    rounded = {key: round(value, 4) for key, value in metrics.items()}
    checkpoint.save(TRACKER, state.module.network, points, {"made_by": __doc__, **rounded})
    print(rounded)


if __name__ == "__main__":
    main()

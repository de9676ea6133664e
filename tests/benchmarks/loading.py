"""Pairs per second that reach a training step: prepared clips against full frames.

    python -m tests.benchmarks.loading [--sequences 16] [--epochs 3]

Made 1280x720 sequences stand for a benchmark's data. Both sides give the same kind of pairs
(template 128, search 256, the same jitter and augmentation) and use two workers: ``PairStream``
two threads over prepared clips, and the baseline a torch ``DataLoader`` of two processes that
decodes two full frames a pair and crops them as OSTrack does. A training step is stood for by a
wait of nothing: the numbers are what the loader can deliver. Prints one JSON object on its last
line.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from dytrack_model.config import ModelConfig
from dytrack_platform.config import DataConfig, SourceConfig
from dytrack_platform.datasets import readers
from dytrack_platform.datasets.loading.pairs import ClipImages, draw_pair
from dytrack_platform.datasets.loading.stream import PairStream
from dytrack_platform.datasets.prepared.preparation import finish, plan_preparation
from dytrack_platform.datasets.prepared.shards import StoredClip, write_shard
from dytrack_platform.datasets.prepared.windows import ClipConfig
from dytrack_platform.datasets.synthetic import SynthConfig, make

MODEL = ModelConfig()
WORKERS = 2


class FullFrames(Dataset):
    """The field's loader: a pair is two whole frames, read, decoded and cropped."""

    def __init__(self, root: str, data: DataConfig, pairs: int):
        self.sequences = list(readers.read("got10k", root, "train"))
        self.data, self.pairs = data, pairs

    def __len__(self):
        return self.pairs

    def __getitem__(self, index):
        cv2.setNumThreads(1)
        rng = np.random.default_rng(index)
        sequence = self.sequences[rng.integers(len(self.sequences))]
        visible = np.flatnonzero(sequence.visible)
        frames = np.sort(rng.choice(visible, 2, replace=False))
        files = [Path(sequence.frames.path(frame)).read_bytes() for frame in frames]
        clip = StoredClip(
            "made",
            sequence.name,
            frames,
            files,
            sequence.boxes_xywh[frames],
            np.ones(2, bool),
            np.ones(2),
        )
        pair = draw_pair(ClipImages(clip), self.data, MODEL, rng, augment=True)
        return pair.template.transpose(2, 0, 1), pair.search.transpose(2, 0, 1), pair.box_cxcywh


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--sequences", type=int, default=16)
    options.add_argument("--epochs", type=int, default=4)
    options.add_argument("--pairs", type=int, default=2048)
    options.add_argument("--batch", type=int, default=32)
    given = options.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        look = SynthConfig(width=1280, height=720, target_side=(60.0, 240.0), frames=(100, 100))
        make(folder, look, "train", given.sequences)
        plan = plan_preparation("got10k", folder, "train", f"{folder}/clips", ClipConfig())
        clips = finish(plan, {job.file: write_shard(job) for job in plan.missing})
        data = DataConfig(
            train=(SourceConfig(path=clips.folder),),
            pairs_per_epoch=given.pairs,
            loader_workers=WORKERS,
        )
        cv2.setNumThreads(1)
        stream = PairStream(data, MODEL, seed=0, batch_size=given.batch)
        full = DataLoader(
            FullFrames(folder, data, given.pairs),
            batch_size=given.batch,
            num_workers=WORKERS,
            persistent_workers=True,
        )
        ours, theirs, memory, first_batch = [], [], [], []
        for epoch in range(given.epochs):  # interleaved, so that both see the same machine
            start = time.perf_counter()
            for step, _ in enumerate(stream.batches(epoch)):
                if step == 0:
                    first_batch.append(time.perf_counter() - start)
            ours.append(given.pairs / (time.perf_counter() - start))
            memory.append(round(peak_mb()))
            stream.close()  # or it would work ahead while the other is measured
            start = time.perf_counter()
            for _ in full:
                pass
            theirs.append(given.pairs / (time.perf_counter() - start))
        list(stream.batches(0))
        time.sleep(0.5)  # a validation or a checkpoint between two epochs
        start = time.perf_counter()
        next(stream.batches(1))
        later = time.perf_counter() - start
        stream.close()
    speed, baseline = float(np.median(ours[1:])), float(np.median(theirs[1:]))
    result = {
        "pairs_per_s": round(speed),
        "full_frames_pairs_per_s": round(baseline),
        "ratio": round(speed / baseline, 2),
        "first_batch_cold_s": round(max(first_batch[1:]), 3),
        "first_batch_later_epoch_s": round(later, 3),
        "peak_memory_mb_by_epoch": memory,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

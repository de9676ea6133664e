"""Frames per second of ``prepare`` against plain loops that do the same work.

    python -m tests.benchmarks.ingest [--frames 16000] [--rounds 3]

The source is 640x480 JPEGs in GOT-10k's layout, every frame of which is decoded, cut to its
window, and encoded; every synthetic sequence is there under four names. In each round, interleaved:
(a) two processes in a plain ``cv2`` loop, each over half of the sequences, without Ray and without
Parquet; (b) one core's decode-and-encode limit, times the cores; and ``prepare`` over a Ray that is
already up (the fixed seconds to start one are stated apart). The fixed seconds of a pipeline, taken
from preparing a few tiny sequences with as many workers, are subtracted for the rate after warm-up
and stated too. Prints one JSON object on its last line.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from dytrack_platform.datasets import readers
from dytrack_platform.datasets.io.frames import decode
from dytrack_platform.datasets.prepared.windows import ClipConfig, cut_window
from dytrack_platform.datasets.synthetic import SynthConfig, make
from dytrack_platform.experiment.cluster.session import ray_session
from dytrack_platform.experiment.ingest import prepare

CLIPS = ClipConfig(frames=40, span=40)
_NAMES = 4


def rename(split: Path) -> int:
    """List every sequence under more names, the files linked; returns how many there are now."""
    names = (split / "list.txt").read_text().split()
    for number in range(1, _NAMES):
        for name in names:
            shutil.copytree(split / name, split / f"{name}_{number}", copy_function=os.link)
    more = [f"{name}_{number}" for number in range(1, _NAMES) for name in names]
    (split / "list.txt").write_text("".join(f"{name}\n" for name in [*names, *more]))
    return _NAMES


def plain_loop(root: str, first: int, last: int) -> int:
    """Do what a preparation does to frames, and write the windows to a file a sequence."""
    cv2.setNumThreads(1)
    count = 0
    for sequence in list(readers.read("got10k", root, "train"))[first:last]:
        kept = []
        for index in range(len(sequence)):
            frame = decode(Path(sequence.frames.path(index)).read_bytes(), "frame")
            kept.append(cut_window(frame, sequence.boxes_xywh[index], CLIPS).jpeg)
        Path(root, f"{sequence.name}.windows").write_bytes(b"".join(kept))
        count += len(kept)
    return count


def decode_and_encode(root: str, seconds: float) -> float:
    """Return one core's frames per second for the two codecs alone, without reading or cutting."""
    cv2.setNumThreads(1)
    (sequence, *_) = readers.read("got10k", root, "train")
    data = np.frombuffer(Path(sequence.frames.path(0)).read_bytes(), np.uint8)
    window = cut_window(sequence.frames.read(0), sequence.boxes_xywh[0], CLIPS)
    small = cv2.imdecode(np.frombuffer(window.jpeg, np.uint8), cv2.IMREAD_COLOR)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
        cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, CLIPS.quality])
        count += 1
    return count / (time.perf_counter() - start)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--frames", type=int, default=16000)
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    made = -(-given.frames // (40 * _NAMES))
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as root:
        # In view all the time, so that every frame has a box to cut.
        look = SynthConfig(
            width=640,
            height=480,
            target_side=(40.0, 120.0),
            frames=(40, 40),
            leaving_view=0.0,
        )
        make(root, look, "train", made)
        sequences = made * rename(Path(root, "train"))
        spawn = multiprocessing.get_context("spawn")
        # Enough shards that every worker starts: two starting at once take longer than one.
        make(f"{root}/tiny", replace(look, frames=(2, 2)), "train", 4 * cores, workers=1)
        ours, gross, loops, limits, fixed = [], [], [], [], []
        start = time.perf_counter()
        with ray_session(), spawn.Pool(2) as pool:
            prepare("got10k", root, "train", f"{root}/warm", CLIPS)
            startup = time.perf_counter() - start
            halves = [(root, 0, sequences // 2), (root, sequences // 2, sequences)]
            pool.starmap(plain_loop, halves)  # warm, as the other is
            for number in range(given.rounds):
                start = time.perf_counter()
                frames = sum(pool.starmap(plain_loop, halves))
                loops.append(frames / (time.perf_counter() - start))
                out = f"{root}/out{number}"
                start = time.perf_counter()
                prepare("got10k", f"{root}/tiny", "train", f"{out}/tiny", CLIPS)
                fixed.append(time.perf_counter() - start)
                start = time.perf_counter()
                done = prepare("got10k", root, "train", out, CLIPS)
                seconds = time.perf_counter() - start
                gross.append(done.frames / seconds)
                ours.append(done.frames / (seconds - fixed[-1]))
                shutil.rmtree(out)
                limits.append(cores * decode_and_encode(root, 1.0))
    speed, loop, limit = (float(np.median(values)) for values in (ours, loops, limits))
    ratios = [a / b for a, b in zip(ours, loops, strict=True)]
    result = {
        "frames": frames,
        "prepare_frames_per_s": round(speed),
        "prepare_frames_per_s_with_fixed_start": round(float(np.median(gross))),
        "fixed_start_of_a_pipeline_s": round(float(np.median(fixed)), 2),
        "two_process_loop_frames_per_s": round(loop),
        "codec_limit_frames_per_s": round(limit),
        "ratio_to_loop": round(float(np.median(ratios)), 3),
        "ratio_to_loop_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "ratio_to_limit": round(speed / limit, 3),
        "first_run_with_start_of_ray_s": round(startup, 1),
        "rounds": [[round(a), round(b)] for a, b in zip(ours, loops, strict=True)],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

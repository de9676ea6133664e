"""Time to score LaSOT's size of test set for ten trackers, against loops over thresholds.

    python -m tests.benchmarks.scoring [--sequences 280] [--trackers 10] [--rounds 3]

The same arrays go through this program, in one process and in two, and through two re-written
ways of the field: pysot's, a comparison and a sum for each threshold, and the got10k toolkit's, one
comparison of every frame with every threshold. All give success, precision and normalised
precision; the scores are compared. The ways take turns, and the best of the rounds counts. The
last line is JSON.
"""

import argparse
import json
import multiprocessing
import resource
import time

import numpy as np

from dytrack_platform.evaluation.scoring.ground_truth import Annotation, Prepared
from dytrack_platform.evaluation.scoring.profiles import profile
from dytrack_platform.evaluation.scoring.sequence_scores import measure

FRAMES = 685_360  # LaSOT's test split
SUCCESS = np.arange(0, 1.05, 0.05)
PIXELS = np.arange(0, 51)
SCALED = np.arange(0, 51) / 100


def make(sequences: int, trackers: int) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """Make annotations and results of LaSOT's number of frames; lengths vary as there."""
    rng = np.random.default_rng(0)
    shares = rng.lognormal(0, 0.4, sequences)
    lengths = np.maximum(100, shares / shares.sum() * FRAMES * sequences / 280).astype(int)
    made = []
    for frames in lengths:
        corner = rng.uniform(50, 400, 2) + np.cumsum(rng.normal(0, 2, (frames, 2)), axis=0)
        truth = np.column_stack([corner, rng.uniform(30, 120, (frames, 2))]).round().clip(1)
        made.append((truth, [truth + rng.normal(0, 9, truth.shape) for _ in range(trackers)]))
    for truth, results in made:
        for result in results:
            result[:, 2:] = np.maximum(result[:, 2:], 2)
            result[0] = truth[0]
    return made


def ours(data):
    """Score with this program, all trackers of a sequence in one pass."""
    rules = profile("pysot-lasot")
    curves = []
    for truth, results in data:
        prepared = Prepared(rules, Annotation(name="made", boxes_xywh=truth))
        for score in measure(prepared, results):
            curves.append((score.success_curve, score.precision_curve, score.norm_precision_curve))
    return curves


def loop_over_thresholds(data):
    """Score as pysot does: masks by rows, then one comparison and sum per threshold."""
    curves = []
    for truth, results in data:
        for result in results:
            frames = len(truth)
            valid = np.sum(truth > 0, axis=1) == 4
            iou = np.full(frames, -1.0)
            iou[valid] = plain_overlap(truth[valid], result[valid])
            success = [np.sum(iou > t) / frames for t in SUCCESS]
            size = truth[:, 2:4] + 1e-16
            pairs = ((middle(truth), middle(result)),)
            pairs += ((middle(truth) / size, middle(result) / size),)
            errors = []
            for ours, theirs in pairs:
                kept = np.sum(ours > 0, axis=1) == 2
                distance = np.full(frames, -1.0)
                squares = np.power(ours[kept] - theirs[kept], 2)
                distance[kept] = np.sqrt(np.sum(squares, axis=1))
                errors.append(distance)
            precision = [np.sum(errors[0] <= t) / frames for t in PIXELS]
            norm = [np.sum(errors[1] <= t) / frames for t in SCALED]
            curves.append((np.array(success), np.array(precision), np.array(norm)))
    return curves


def every_frame_with_every_threshold(data):
    """Score as the got10k toolkit does: a frames x thresholds comparison, then its mean."""
    curves = []
    for truth, results in data:
        for result in results:
            iou = np.clip(plain_overlap(truth, result), 0.0, 1.0)
            near, far = middle(result), middle(truth)
            error = np.sqrt(np.sum(np.power(near - far, 2), axis=-1))
            scaled = (near - far) / np.maximum(1.0, truth[:, 2:])
            norm = np.sqrt(np.sum(np.power(scaled, 2), axis=-1))
            curves.append(
                (
                    np.mean(np.greater(iou[:, None], SUCCESS[None]), axis=0),
                    np.mean(np.less_equal(error[:, None], PIXELS[None]), axis=0),
                    np.mean(np.less_equal(norm[:, None], SCALED[None]), axis=0),
                )
            )
    return curves


def plain_overlap(a, b):
    low = np.maximum(a[:, :2], b[:, :2])
    high = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    shared = np.prod(np.maximum(0, high - low), axis=1)
    return shared / (np.prod(a[:, 2:], axis=1) + np.prod(b[:, 2:], axis=1) - shared)


def middle(boxes):
    return boxes[:, :2] + (boxes[:, 2:] - 1) / 2


def in_two_processes(data):
    """Score with this program, half of the frames in a second process; its start is counted."""
    frames = np.cumsum([len(truth) for truth, _ in data])
    middle = int(np.searchsorted(frames, frames[-1] / 2))
    # A forked process has the arrays already, as one that reads the files itself would.
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    other = context.Process(target=lambda: send.send(ours(data[middle:])))
    other.start()
    curves = ours(data[:middle]) + receive.recv()
    other.join()
    return curves


WAYS = {
    "ours": ours,
    "two_processes": in_two_processes,
    "pysot": loop_over_thresholds,
    "got10k": every_frame_with_every_threshold,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=280)
    parser.add_argument("--trackers", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    data = make(asked.sequences, asked.trackers)
    frames = sum(len(truth) for truth, _ in data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours(data)  # the first call loads what later ones use
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    curves = {}
    for _ in range(asked.rounds):
        for name, way in WAYS.items():
            began = time.perf_counter()
            curves[name] = way(data)
            seconds[name].append(time.perf_counter() - began)
    worst = max(
        float(np.abs(np.array(a) - np.array(b)).max())
        for name in ("ours", "two_processes")
        for mine, theirs in zip(curves[name], curves["pysot"], strict=True)
        for a, b in zip(mine, theirs, strict=True)
    )
    best = {name: min(times) for name, times in seconds.items()}
    print(f"{frames} frames x {asked.trackers} trackers, seconds (best and worst round):")
    for name, times in seconds.items():
        print(f"  {name:14} {min(times):7.3f} {max(times):7.3f}")
    for name in ("ours", "two_processes"):
        ratios = ", ".join(f"{best[way] / best[name]:.1f} x {way}" for way in ("pysot", "got10k"))
        print(f"{name}: as fast as {ratios}")
    print(
        json.dumps(
            {
                "benchmark": "scoring",
                "frames": frames,
                "trackers": asked.trackers,
                "seconds": seconds,
                "times_faster": {
                    f"{name} than {way}": best[way] / best[name]
                    for name in ("ours", "two_processes")
                    for way in ("pysot", "got10k")
                },
                "largest_difference": worst,
                "peak_mib": after / 1024,
                "peak_above_data_mib": (after - before) / 1024,
            }
        )
    )


if __name__ == "__main__":
    main()

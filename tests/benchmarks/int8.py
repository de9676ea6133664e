"""Static int8 beside everything else: milliseconds of every exit, boxes, and success AUC.

    python -m tests.benchmarks.int8 --sequences ROOT --list val.txt --calibrate OTHERS --frames 150

Milliseconds are one thread's, runtimes taking turns; --rounds 0 leaves them out. Boxes are compared
on the same crops, at every exit: those cut along the track of PyTorch in fp32; where the score map
has its peak in the same cell, in pixels. Success AUC is that of each runtime's own track at full
depth. The last line is JSON, with the machine's load before and after. Ranges are found on
--calibrate, which must hold other sequences.
"""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from dytrack_model import checkpoint
from dytrack_model.checkpoint import SavedTracker
from dytrack_model.config import variant
from dytrack_model.cost import exit_milliseconds
from dytrack_model.images import RGB
from dytrack_model.network import DyTrackNetwork
from dytrack_model.online import Tracker
from dytrack_model.runtime import build
from dytrack_model.runtime import export as exports
from dytrack_model.runtime.quantisation import pairs_of
from tests.benchmarks.videos import frames_of
from tests.peaks import differ, keep_scores

WAYS = {
    "eager fp32": ("torch", "fp32", False),
    "OpenVINO bf16": ("openvino", "bf16", False),
    "OpenVINO int8, found while running": ("openvino", "int8", False),
    "OpenVINO int8, static": ("openvino", "int8", True),
}


def engines(saved):
    return {
        name: build(
            saved.network, runtime, precision, threads=1, ranges=saved.ranges if static else None
        )
        for name, (runtime, precision, static) in WAYS.items()
    }


def milliseconds(saved, rounds, frames=8):
    made = engines(saved)
    times = {name: [] for name in made}
    for _ in range(rounds):
        for name, engine in made.items():
            times[name].append(exit_milliseconds(engine, frames, warm_up=2))
    return {name: np.median(rows, axis=0).round(2).tolist() for name, rows in times.items()}


def read(root, name, most):
    folder = root / name
    found = frames_of(folder, most or None)
    frames = [RGB.from_bgr(np.asarray(pixels, np.uint8)) for pixels in found]
    rows = (folder / "groundtruth.txt").read_text().split()[: len(frames)]
    return frames, np.array([[float(v) for v in row.split(",")] for row in rows])


def overlaps(boxes, truth):
    low = np.maximum(boxes[:, :2], truth[:, :2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], truth[:, :2] + truth[:, 2:])
    common = np.clip(high - low, 0, None).prod(axis=1)
    union = boxes[:, 2:].prod(axis=1) + truth[:, 2:].prod(axis=1) - common
    return common / np.maximum(union, 1e-9)


def success_auc(values):
    return float(np.mean([(values > t).mean() for t in np.linspace(0, 1, 21)]))


def tracked(engine, frames, truth):
    found = list(Tracker(engine, states=None).track(frames, truth[0]))
    boxes = np.stack([truth[0], *(one.box_xywh for one in found)])
    return success_auc(overlaps(boxes, truth)[(truth[:, 2:] > 0).all(axis=1)])


def compare(made, scores, frames, truth, every=4):
    """Boxes of each way's tracker on the same crops, for each exit and every so many frames.

    Args:
        made: A tracker for each way.
        scores: What :func:`keep_scores` gave for each.
        frames: Of one video.
        truth: Its boxes.
        every: Frames from one comparison to the next.

    Returns:
        For each way rows of what :func:`~tests.peaks.differ` gives.
    """
    for tracker in made.values():
        tracker.start(frames[0], truth[0])
    lead = made["eager fp32"]
    rows = {name: [] for name in made if made[name] is not lead}
    for number, frame in enumerate(frames[1:]):
        box = lead.box_xywh
        for seen in scores.values():
            seen.clear()
        expected = lead.step_all(frame)
        if number % every:
            continue
        for name, found in rows.items():
            made[name].move_to(box)
            steps = zip(
                made[name].step_all(frame),
                expected,
                scores[name],
                scores["eager fp32"],
                strict=True,
            )
            for ours, theirs, score, wanted in steps:
                found.append(differ(ours, theirs, score, wanted))
    return rows


def summary(rows, exits):
    """Counts of :func:`compare`'s rows, over all exits and at each."""
    said = {}
    for name, part in [("all exits", rows)] + [
        (f"exit {k + 1} of {exits}", rows[k::exits]) for k in range(exits)
    ]:
        gaps = np.array([gap for gap, same, _ in part if same])
        below = [far for _, same, far in part if not same]
        said[name] = {
            "compared": len(part),
            "same_peak": len(gaps),
            "within_2_px": round(float((gaps < 2).mean()), 4),
            "median_px": round(float(np.median(gaps)), 3),
            "99_percent_px": round(float(np.quantile(gaps, 0.99)), 2),
            "largest_px": round(float(gaps.max()), 2),
            "largest_tie": round(max(below, default=0.0), 3),
        }
    return said


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracker", default="reference")
    parser.add_argument("--sequences", type=Path)
    parser.add_argument("--list", type=Path, help="names of sequences to measure accuracy on")
    parser.add_argument("--calibrate", type=Path, required=True)
    parser.add_argument("--variants", nargs="*", default=["tiny", "small", "base"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=0, help="first frames of each; 0 for all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    result = {"load": [os.getloadavg()[0]], "milliseconds": {}}
    saved = checkpoint.load(options.tracker)
    pairs = list(pairs_of(options.calibrate, saved.network.config))
    saved = replace(saved, ranges=exports.find_ranges(saved, pairs))
    if options.rounds:
        result["milliseconds"][options.tracker] = milliseconds(saved, options.rounds)
        print(options.tracker, result["milliseconds"][options.tracker], flush=True)
    for name in options.variants if options.rounds else ():
        torch.manual_seed(0)
        plain = SavedTracker(network=DyTrackNetwork(variant(name)).eval())
        pairs = list(pairs_of(options.calibrate, plain.network.config, 8))
        plain = replace(plain, ranges=exports.find_ranges(plain, pairs))
        result["milliseconds"][name] = milliseconds(plain, options.rounds)
        print(name, result["milliseconds"][name], flush=True)
    if options.list:
        result |= accuracy(saved, options)
    result["load"].append(os.getloadavg()[0])
    print(json.dumps(result))


def accuracy(saved, options):
    """Success AUC of every way's own tracks, and its boxes on fp32's crops."""
    made = engines(saved)
    aucs = {name: [] for name in made}
    gaps = {name: [] for name in made if name != "eager fp32"}
    beside = {name: Tracker(engine, states=None, correct=False) for name, engine in made.items()}
    scores = {name: keep_scores(tracker) for name, tracker in beside.items()}
    names = options.list.read_text().split()
    for sequence in names:
        frames, truth = read(options.sequences, sequence, options.frames)
        for name, engine in made.items():
            aucs[name].append(tracked(engine, frames, truth))
        for name, rows in compare(beside, scores, frames, truth).items():
            gaps[name] += rows
        print(sequence, {name: round(rows[-1], 4) for name, rows in aucs.items()}, flush=True)
    exits = made["eager fp32"].exit_count
    return {
        "videos": len(names),
        "success_auc": {name: round(float(np.mean(rows)), 4) for name, rows in aucs.items()},
        "boxes": {name: summary(rows, exits) for name, rows in gaps.items()},
    }


if __name__ == "__main__":
    main()

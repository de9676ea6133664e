"""Static int8 beside everything else: milliseconds of every exit, boxes, and success AUC.

    python -m tests.benchmarks.int8 --tracker reference --sequences ROOT --list val.txt

Milliseconds are one thread's, runtimes taking turns. Boxes are compared on the same crops: those
cut along the track of PyTorch in fp32. Success AUC is that of each runtime's own track at full
depth. The last line is JSON. Ranges are found on --calibrate, which must hold other sequences.
"""

import argparse
import json
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


def read(root, name):
    folder = root / name
    video = next(path for path in folder.iterdir() if path.stem == "video")
    capture, frames = cv2.VideoCapture(str(video)), []
    while True:
        good, pixels = capture.read()
        if not good:
            break
        frames.append(RGB.from_bgr(np.asarray(pixels, np.uint8)))
    rows = (folder / "groundtruth.txt").read_text().split()
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


def compare(made, frames, truth, every=4):
    """Differences of boxes on the same crops: at the same peak in pixels, and other peaks."""
    first = made["eager fp32"]
    lead = Tracker(first, states=None, correct=False)
    lead.start(frames[0], truth[0])
    others = {name: engine for name, engine in made.items() if engine is not first}
    beside = {name: Tracker(engine, states=None, correct=False) for name, engine in others.items()}
    for tracker in beside.values():
        tracker.start(frames[0], truth[0])
    rows = {name: [] for name in others}
    for number, frame in enumerate(frames[1:]):
        box = lead.box_xywh
        expected = lead.step_all(frame)
        if number % every:
            continue
        cell = 4.0 * np.sqrt(box[2] * box[3]) / first.config.map_size
        for name, tracker in beside.items():
            tracker.move_to(box)
            for ours, theirs in zip(tracker.step_all(frame), expected, strict=True):
                gap = np.abs(ours.box_xywh - theirs.box_xywh).max()
                rows[name].append((float(gap), bool(gap > max(0.35 * cell, 2.0))))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracker", default="reference")
    parser.add_argument("--sequences", type=Path)
    parser.add_argument("--list", type=Path, help="names of sequences to measure accuracy on")
    parser.add_argument("--calibrate", type=Path, required=True)
    parser.add_argument("--variants", nargs="*", default=["tiny", "small", "base"])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    result = {"milliseconds": {}}
    saved = checkpoint.load(options.tracker)
    pairs = list(pairs_of(options.calibrate, saved.network.config))
    saved = replace(saved, ranges=exports.find_ranges(saved, pairs))
    result["milliseconds"][options.tracker] = milliseconds(saved, options.rounds)
    for name in options.variants:
        torch.manual_seed(0)
        plain = SavedTracker(network=DyTrackNetwork(variant(name)).eval())
        pairs = list(pairs_of(options.calibrate, plain.network.config, 8))
        plain = replace(plain, ranges=exports.find_ranges(plain, pairs))
        result["milliseconds"][name] = milliseconds(plain, options.rounds)
        print(name, result["milliseconds"][name], flush=True)
    if options.list:
        made = engines(saved)
        aucs = {name: [] for name in made}
        gaps = {name: [] for name in made}
        for sequence in options.list.read_text().split():
            frames, truth = read(options.sequences, sequence)
            for name, engine in made.items():
                aucs[name].append(tracked(engine, frames, truth))
            for name, rows in compare(made, frames, truth).items():
                gaps[name] += rows
            print(sequence, {name: round(rows[-1], 4) for name, rows in aucs.items()}, flush=True)
        result["success_auc"] = {name: float(np.mean(rows)) for name, rows in aucs.items()}
        result["boxes"] = {
            name: {
                "compared": len(rows),
                "largest_px_at_the_same_peak": max(gap for gap, other in rows if not other),
                "other_peaks": sum(other for _, other in rows),
            }
            for name, rows in gaps.items()
            if rows
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

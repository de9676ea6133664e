"""A target that is gone for minutes: its box, memory, and the time of a frame.

    python -m tests.benchmarks.absence --sequences ROOT --target NAME --then NAME [--frames 15000]

The tracker is given the target of one video and follows it for a second; then it is shown another
video, in which the target never is, back and forth. Ten minutes of 25 frames/s are 15,000 frames.
The last line is JSON.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil

from dytrack_model import Tracker
from tests.benchmarks.videos import frames_of


def read(folder, most):
    return [np.ascontiguousarray(pixels[..., ::-1]) for pixels in frames_of(folder, most)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=Path, required=True)
    parser.add_argument("--target", required=True, help="sequence that has the target")
    parser.add_argument("--then", required=True, help="sequence that does not")
    parser.add_argument("--frames", type=int, default=15_000)
    parser.add_argument("--model", default="reference")
    parser.add_argument("--runtime", default="openvino")
    parser.add_argument("--point", default="balanced")
    given = parser.parse_args()
    first = read(given.sequences / given.target, 25)
    after = read(given.sequences / given.then, 100)
    after += after[-2:0:-1]
    text = (given.sequences / given.target / "groundtruth.txt").read_text().split()[0]
    box = [float(value) for value in text.replace("\t", ",").split(",")]
    tracker = Tracker.load(given.model, point=given.point, runtime=given.runtime, threads=1)
    tracker.start(first[0], box)
    for frame in first[1:]:
        seen = tracker.step(frame)
    process, memory, states, sides, times = psutil.Process(), [], Counter(), [], []
    lost_at = None
    height, width = after[0].shape[:2]
    for number in range(given.frames):
        began = time.perf_counter()
        seen = tracker.step(after[number % len(after)])
        times.append((time.perf_counter() - began) * 1e3)
        states[str(seen.state)] += 1
        if lost_at is None and seen.lost:
            lost_at = number
        x, y, w, h = seen.box_xywh
        sides.append(max(w, h))
        inside = x >= -1e-6 and y >= -1e-6 and x + w <= width + 1e-6 and y + h <= height + 1e-6
        assert inside, (number, seen.box_xywh)
        if number % 20 == 0:
            memory.append((number, process.memory_info().rss / 2**20))
        if number % 3000 == 2999:
            print(number + 1, dict(states), f"{memory[-1][1]:.0f} MiB", flush=True)
    rows = np.array(memory)
    rows = rows[rows[:, 0] > 0.25 * given.frames]
    slope = float(np.polyfit(rows[:, 0] / 1500, rows[:, 1], 1)[0])
    result = {
        "model": given.model,
        "point": given.point,
        "target": given.target,
        "then": given.then,
        "frames": given.frames,
        "states": {state: round(n / given.frames, 4) for state, n in states.items()},
        "lost_at": lost_at,
        "side_px": [round(float(value), 1) for value in (max(box[2:]), min(sides), max(sides))],
        "mib_per_minute_of_video": round(slope, 3),
        "mib": round(memory[-1][1], 1),
        "ms": [round(float(np.percentile(times, q)), 1) for q in (50, 99)],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

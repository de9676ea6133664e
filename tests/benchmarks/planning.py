"""Planning a preparation of COCO: seconds, memory at most and memory that stays.

    python -m tests.benchmarks.planning --boxes 860001

A file of that many boxes is made, with an outline of 24 numbers each, as COCO has them; 860,001 in
118,287 pictures is COCO itself. Memory is the resident set less what it was before planning, in a
process of its own. The last line is JSON; plans with the same digest are the same.
"""

import argparse
import gc
import hashlib
import json
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

_BOXES_A_PICTURE = 860_001 / 118_287


def write(root, boxes):
    """Write an annotation file with so many boxes below a root."""
    pictures = max(1, round(boxes / _BOXES_A_PICTURE))
    rng = np.random.default_rng(0)
    corners, sides = rng.uniform(0, 400, (boxes, 2)), rng.uniform(1, 200, (boxes, 2))
    owners = np.sort(rng.integers(0, pictures, boxes))
    (root / "annotations").mkdir(parents=True)
    (root / "train2017").mkdir()
    with (root / "annotations" / "instances_train2017.json").open("w") as file:
        images = [{"id": 7 * n + 9, "file_name": f"{7 * n + 9:012d}.jpg"} for n in range(pictures)]
        classes = [{"id": n, "name": f"class {n}"} for n in range(1, 81)]
        file.write(f'{{"images": {json.dumps(images)}, "categories": {json.dumps(classes)}, ')
        file.write('"annotations": [')
        for number in range(boxes):
            box = np.concatenate([corners[number], sides[number]]).round(2).tolist()
            outline = rng.uniform(0, 600, 24).round(2).tolist()
            annotation = {
                "segmentation": [outline],
                "area": box[2] * box[3],
                "iscrowd": 0,
                "image_id": 7 * int(owners[number]) + 9,
                "bbox": box,
                "category_id": 1 + number % 80,
                "id": number + 1,
            }
            file.write((", " if number else "") + json.dumps(annotation))
        file.write("]}")


def plan(root, out):
    """Plan in this process, and say what it took."""
    from dytrack_platform.datasets.prepared.preparation import plan_preparation
    from dytrack_platform.datasets.prepared.windows import ClipConfig

    gc.collect()
    before, began = resident(), time.perf_counter()
    planned = plan_preparation("coco", str(root), "train", str(out), ClipConfig(search_size=128))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3 - before
    gc.collect()
    digest = hashlib.sha256()
    for job in planned.jobs:
        digest.update(f"{job.file} {job.plan} {len(job.sequences)}\n".encode())
    return {
        "seconds": round(seconds, 1),
        "peak_mb": round(peak),
        "held_mb": round(resident() - before),
        "shards": len(planned.jobs),
        "digest": digest.hexdigest()[:16],
    }


def resident():
    """Return the resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boxes", type=int, nargs="*", default=[200_000, 860_001])
    options = parser.parse_args()
    result = {}
    for boxes in options.boxes:
        with tempfile.TemporaryDirectory(prefix="dytrack-") as folder:
            write(Path(folder) / "coco", boxes)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                result[boxes] = pool.apply(plan, (Path(folder) / "coco", Path(folder) / "out"))
        print(boxes, result[boxes], flush=True)
    print(json.dumps({"load": os.getloadavg()[0], **result}))


if __name__ == "__main__":
    main()

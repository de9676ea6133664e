"""Print digests of the golden tracker's boxes on a video, to compare one commit with another.

::

    python -m tests.golden.boxes VIDEO X,Y,W,H [FRAMES]

The same lines at two commits mean the same boxes, scores and exits to the last bit: corrections and
states are off, so that what is compared is the network, the crops and the policies.
"""

import hashlib
import itertools
import sys
from pathlib import Path

import numpy as np
import torch

from dytrack_model import Tracker, checkpoint
from dytrack_model.images import read_frames
from dytrack_model.policy import Thresholds

THRESHOLDS = ((0.0, 0.0), (0.5, 0.5), (float("inf"), float("inf")))


def digests(video: str, box_xywh: tuple[float, ...], frames: int = 60) -> list[str]:
    """Return one line for each policy."""
    torch.set_num_threads(1)  # sums in another order differ in the last bits
    network = checkpoint.load(Path(__file__).parent / "tracker").network
    lines = []
    for thresholds in THRESHOLDS:
        tracker = Tracker(network, Thresholds(thresholds), correct=False, states=None)
        digest = hashlib.sha256()
        shown = itertools.islice(read_frames(video, "rgb"), frames)
        for found in tracker.track(shown, box_xywh):
            numbers = (*found.box_xywh, found.predicted_iou, found.exit_index)
            digest.update(np.array(numbers, np.float64).tobytes())
        lines.append(f"{thresholds} {digest.hexdigest()[:16]}")
    return lines


if __name__ == "__main__":
    path, box, *rest = sys.argv[1:]
    numbers = tuple(float(value) for value in box.split(","))
    print("\n".join(digests(path, numbers, *(int(value) for value in rest))))

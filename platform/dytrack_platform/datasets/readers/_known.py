"""Faults of published data that no program can see, as users reported them to the owners.

They are reported like any other damage, so that nobody trains on them unknowingly.
"""

from dataclasses import replace

import numpy as np

from dytrack_platform.datasets.sequence import Fault, VideoSequence

_GOT10K_BOXES = [*range(8623, 8638), 9058, 9059]

WRONG_BOXES: dict[str, frozenset[str]] = {
    "got10k": frozenset(f"GOT-10k_Train_{number:06d}" for number in _GOT10K_BOXES),
    "trackingnet": frozenset({"A63BoLTUNAM_0", "a1qoB1eERn0_0"}),
}
"""Sequences of each dataset whose boxes do not follow their target."""

WRONG_FRAMES: dict[str, dict[str, range]] = {
    "got10k": {
        "GOT-10k_Train_001636": range(42, 53),
        "GOT-10k_Train_001638": range(24, 33),
    },
}
"""Frames, by position from 0, that show something else than the rest of their sequence. The
reports count files, from 1."""


def without_wrong_frames(sequence: VideoSequence) -> VideoSequence:
    """Count frames that are known to be wrong as not visible, and report them."""
    known = WRONG_FRAMES.get(sequence.dataset, {}).get(sequence.name, range(0))
    frames = [frame for frame in known if frame < len(sequence)]
    if not frames:
        return sequence
    visible = sequence.visible & ~np.isin(np.arange(len(sequence)), frames)
    reason = "the published image is known to be of another scene"
    faults = [
        Fault(dataset=sequence.dataset, sequence=sequence.name, frame=frame, reason=reason)
        for frame in frames
    ]
    return replace(sequence, visible=visible, faults=(*sequence.faults, *faults))

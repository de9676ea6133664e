"""What a preparation would come to: counted from annotations, timed on a few clips in memory."""

import time
from dataclasses import dataclass

import numpy as np

from dytrack_platform.datasets.prepared.clips import FrameCache, cut_clips, plan_clips
from dytrack_platform.datasets.prepared.preparation import Preparation
from dytrack_platform.datasets.sequence import Fault

SAMPLE = 12
"""Sequences whose first clip is cut for the estimates, spread over those that are left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparationCost:
    """What :func:`preparation_cost` foretells."""

    folder: str
    """Folder or URL of the partition."""
    sequences: int
    """Sequences that clips can be made of."""
    too_small: int
    """Sequences left out because their target is never large enough."""
    rejects: int
    """What the annotations alone rule out; images that do not decode come on top."""
    shards: int
    """Files in all."""
    finished: int
    """Of them, those that are there and stay."""
    clips: int
    """Clips still to be cut."""
    frames: int
    """Frames in them."""
    sampled: int
    """Frames that were cut in memory for the two estimates below."""
    disk_bytes: float | None
    """Size of what is left to write; None where nothing could be sampled."""
    core_seconds: float | None
    """Time of one core for it, reading included; starting Ray comes on top."""


def preparation_cost(preparation: Preparation) -> PreparationCost:
    """Count clips and frames, and cut a few of them without writing.

    Args:
        preparation: The plan; it reads annotations alone.
    """
    left = [sequence for job in preparation.missing for sequence in job.sequences]
    plans = [plan_clips(sequence, preparation.config) for sequence in left]
    frames = sum(len(clip) for plan in plans for clip in plan)
    size = sampled = 0
    began = time.perf_counter()
    for place in np.unique(np.linspace(0, len(left) - 1, min(SAMPLE, len(left))).astype(int)):
        faults: list[Fault] = []
        clip = next(cut_clips(left[place], preparation.config, FrameCache(), faults), None)
        if clip is not None:
            sampled += len(clip.frames)
            size += sum(len(window.jpeg) for window in clip.windows)
    seconds = time.perf_counter() - began
    known = sampled > 0 or frames == 0
    return PreparationCost(
        folder=preparation.partition.root,
        sequences=sum(len(job.sequences) for job in preparation.jobs),
        too_small=preparation.small,
        rejects=len(preparation.faults),
        shards=len(preparation.jobs),
        finished=len(preparation.finished),
        clips=sum(map(len, plans)),
        frames=frames,
        sampled=sampled,
        disk_bytes=size / max(sampled, 1) * frames if known else None,
        core_seconds=seconds / max(sampled, 1) * frames if known else None,
    )

"""The narrow search region: the middle of the search crop, at the same scale.

Most of a search crop is there for targets that move fast or were lost. Where a target is certain
and slow, its middle is enough: of the 144 tokens of a crop of 12 x 12 patches, 64 are left in its 8
x 8 in the middle, and full depth costs little more than half. Tokens keep the positions that they
have in the whole crop, and targets their size in pixels, so a network sees less of what it
knows, and needs no training for it. Source: our choice; search regions that follow the target's
motion are older than networks.
"""

from dytrack_model.exits.decisioner import ScoreMapSummary
from dytrack_model.exits.heads import CentreHead
from dytrack_model.network import DyTrackNetwork, sharing_copy

NARROW = "narrow_"
"""How the names of everything begin that belongs to the narrow search crop."""
SLOW_BELOW = 0.5
"""Displacement between two frames, in roots of the target's area, from which it is not slow."""
WIDE_FRAMES = 3
"""Frames for which the whole region is looked at after a displacement as large."""


class Pace:
    """How fast a target moves: whether the narrow region is enough for the next frame.

    Args:
        wide_frames: For how many frames it is not, to begin with.
    """

    def __init__(self, wide_frames: int = 0) -> None:
        self.wide_frames = wide_frames

    @property
    def slow(self) -> bool:
        """Whether the narrow region is enough."""
        return self.wide_frames == 0

    def moved(self, displacement: float) -> None:
        """Take in how far the centre moved in a frame, in roots of the target's area."""
        slow = displacement <= SLOW_BELOW
        self.wide_frames = max(0, self.wide_frames - 1) if slow else WIDE_FRAMES

    def rush(self) -> None:
        """Look at the whole region for a while: nobody knows how fast the target moves."""
        self.wide_frames = WIDE_FRAMES


def narrowed(network: DyTrackNetwork) -> DyTrackNetwork:
    """Return a network over the narrow search crop.

    Args:
        network: Its configuration has a ``narrow_size``; it is not changed.

    Returns:
        Another network with the same weights in the same memory.

    Raises:
        ConfigurationError: There is no narrow search crop.
    """
    config = network.config.narrowed()
    whole, side = network.config.map_size, config.map_size
    narrow = sharing_copy(network)
    narrow.config = narrow.backbone.config = config
    for head in narrow.heads:
        assert isinstance(head, CentreHead)
        head.map_size, head.size_scale = side, whole / side
    for summary in narrow.score_summaries:
        assert isinstance(summary, ScoreMapSummary)
        summary.read_maps_of(side)
    return narrow

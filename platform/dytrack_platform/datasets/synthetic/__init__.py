"""Synthetic sequences: seeded, with known truth, as difficult as asked for."""

from dytrack_platform.datasets.synthetic.config import CHALLENGES, SynthConfig
from dytrack_platform.datasets.synthetic.maker import make

__all__ = ["CHALLENGES", "SynthConfig", "make"]

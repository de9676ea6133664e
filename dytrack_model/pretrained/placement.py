"""A tracker with fewer exits out of one with many: the weights are shared exactly.

A placement drops heads, decisioners and recycling of the exits that it lacks. Blocks, norms and
everything of the exits that stay are the same numbers, and what is recycled comes from the exit
before that is still there.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from dytrack_model.config import require
from dytrack_model.network import DyTrackNetwork

_BY_EXIT = ("norms", "matching", "score_summaries", "decisioners", "heads")


def inherit(network: DyTrackNetwork, exits: Sequence[int]) -> DyTrackNetwork:
    """Return a network with some of the exits of another, and its weights, copied.

    Args:
        network: It is not changed.
        exits: Depths in blocks, rising, all of them exits of ``network``; the last one is its last.

    Raises:
        ConfigurationError: One of them is no exit of ``network``.
    """
    depths = network.config.exits
    missing = [depth for depth in exits if depth not in depths]
    require(not missing, f"exits: {missing} are no exits of this tracker, which has {depths}")
    config = replace(network.config, exits=tuple(exits))
    with torch.random.fork_rng(devices=[]):
        inherited = DyTrackNetwork(config)
    kept = [depths.index(depth) for depth in exits]
    weights = {}
    for name, tensor in network.state_dict().items():
        part, _, rest = name.partition(".")
        number, _, inside = rest.partition(".")
        if part in _BY_EXIT:
            if int(number) in kept:
                weights[f"{part}.{kept.index(int(number))}.{inside}"] = tensor
        elif part == "recycling":
            # Recycling belongs to the exit that reads it; the first one left reads nothing.
            if int(number) + 1 in kept[1:]:
                weights[f"{part}.{kept.index(int(number) + 1) - 1}.{inside}"] = tensor
        else:
            weights[name] = tensor
    inherited.load_state_dict(weights)
    return inherited.train(network.training)

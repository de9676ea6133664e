"""Start a network from another tracker: the same one, or one with fewer blocks or other exits.

A tracker's first blocks are a tracker of their own, so a small tracker for weak machines may
start from the lower half of a large one, on smaller crops, instead of from nothing.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from dytrack_model.config import ModelConfig
from dytrack_model.errors import CheckpointError
from dytrack_model.network import DyTrackNetwork
from dytrack_model.pretrained.backbone import resample_positions

_ANEW = {
    "decisioner": ("decisioners", "score_summaries"),
    "decisioner_width": ("decisioners",),
    "recycling": ("recycling",),
    "head_width": ("heads",),
}
"""Parts of a network whose weights mean nothing once a key of its configuration has changed."""
_SAME = ("width", "heads", "patch")
"""Keys that give the blocks their shape."""
_PER_EXIT = ("norms", "matching", "score_summaries", "decisioners", "heads")
_SILENT = ("variant", "matching_start", "backbone", "depth", "exits", "template_size")
"""Keys whose change needs no word, or has one of its own."""


@torch.no_grad()
def load_tracker(
    network: DyTrackNetwork, before: ModelConfig, tensors: Mapping[str, Tensor], place: str
) -> tuple[str, ...]:
    """Copy the weights of a saved tracker into a network that may be smaller.

    Blocks are taken from the first on. An exit takes what belongs to the exit at the same depth, or
    at the nearest one; position embeddings are resampled to the new crops (bicubic).
    Decisioners, recycling and heads of another kind start anew.

    Args:
        network: The network; changed in place.
        before: Configuration of the saved tracker.
        tensors: Its weights by name, such as (D, D) of a linear layer.
        place: Where it was read, for messages.

    Returns:
        What became of the weights, in sentences.

    Raises:
        CheckpointError: Its blocks have another shape, or there are fewer of them.
    """
    now = network.config
    _require_fit(before, now, place)
    anew = {
        part
        for key, parts in _ANEW.items()
        if getattr(before, key) != getattr(now, key)
        for part in parts
    }
    nearest = [
        min(range(len(before.exits)), key=lambda i: (abs(before.exits[i] - depth), i))
        for depth in now.exits
    ]
    state = network.state_dict()
    loaded = 0
    for name, target in state.items():
        part = name.split(".")[0]
        if part in anew:
            continue
        source = _source(name, nearest)
        tensor = tensors.get(source) if source else None
        if tensor is None:
            anew.add(part if part != "backbone" else name)
            continue
        if name in ("backbone.template_position", "backbone.search_position"):
            tensor = _positions(tensor, target.shape[1])
        if tensor.shape != target.shape:
            raise CheckpointError(
                f"{place}: {source} is {tuple(tensor.shape)}, the model needs "
                f"{tuple(target.shape)}: they are not of one kind of backbone"
            )
        target.copy_(tensor)
        loaded += 1
    network.load_state_dict(state)
    told = f"{loaded} tensors of a whole tracker loaded"
    sentences = [f"{told}; anew: {', '.join(sorted(anew))}" if anew else told]
    if (before.depth, before.exits) != (now.depth, now.exits):
        pairs = ", ".join(
            f"{depth} from {before.exits[i]}" for depth, i in zip(now.exits, nearest, strict=True)
        )
        sentences.append(f"{now.depth} of {before.depth} blocks; exits: {pairs}")
    # Weights of one shape can belong to models that compute something else.
    old, new = before.to_dict(), now.to_dict()
    sentences += [
        f"model.{key} was {old[key]!r} there and is {new[key]!r} here"
        for key in new
        if old[key] != new[key] and key not in _SILENT
    ]
    return tuple(sentences)


def _require_fit(before: ModelConfig, now: ModelConfig, place: str) -> None:
    for key in _SAME:
        old, new = getattr(before, key), getattr(now, key)
        if old != new:
            raise CheckpointError(
                f"{place}: model.{key} is {old} there and {new} here: blocks of another shape "
                "cannot be taken over"
            )
    if before.depth < now.depth:
        raise CheckpointError(
            f"{place}: has {before.depth} blocks, model.depth asks for {now.depth}: start a deeper "
            "tracker from weights of a backbone"
        )


def _source(name: str, nearest: list[int]) -> str | None:
    """Return the tensor of the other tracker that this one starts from; None: there is none."""
    part, _, rest = name.partition(".")
    if part == "backbone":
        return name
    number, _, rest = rest.partition(".")
    if part in _PER_EXIT:
        return f"{part}.{nearest[int(number)]}.{rest}"
    # Recycling i lies between exits i and i + 1; nothing flows into a first exit.
    index = nearest[int(number) + 1] - 1
    return f"{part}.{index}.{rest}" if index >= 0 else None


def _positions(positions: Tensor, tokens: int) -> Tensor:
    """Resample (1, N, D) positions of a square grid to (1, tokens, D)."""
    if positions.shape[1] == tokens:
        return positions
    side = round(positions.shape[1] ** 0.5)
    grid = positions.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    return resample_positions(grid, round(tokens**0.5))

"""The weights that a training starts from, and how much of them is left in the finished tracker."""

import copy
from pathlib import Path

import torch

from dytrack_model import checkpoint
from dytrack_model.folders import SHIPPED
from dytrack_model.network import DyTrackNetwork
from dytrack_model.pretrained.backbone import load_backbone
from dytrack_model.pretrained.tracker import load_tracker
from dytrack_platform.training.state import TRACKER

_MIXED = ("blocks.", "patch_embed.")
"""Parts of the backbone that were of use before the training; the rest was adapted or made anew."""


def load_initial(network: DyTrackNetwork, path: str) -> tuple[str, ...]:
    """Start from a file of backbone weights, or from the whole network of a tracker or a run.

    A tracker may have had more blocks, other exits or larger crops
    (:func:`~dytrack_model.pretrained.tracker.load_tracker`).

    Returns:
        What became of the weights, in sentences.

    Raises:
        CheckpointError: It cannot be read, or is of another model.
    """
    folder = SHIPPED.get(path, Path(path))
    inside = folder / TRACKER
    if inside.is_dir():
        folder = inside
    if not folder.is_dir():
        return load_backbone(network, path).sentences()
    before = checkpoint.read_config(folder)
    tensors = checkpoint.read_weights(folder / checkpoint.WEIGHTS)
    return load_tracker(network, before, tensors, str(folder))


@torch.no_grad()
def mix_with_initial(network: DyTrackNetwork, path: str, share: float) -> None:
    """Move the backbone a little back towards the weights that it started from (WiSE-FT).

    A network that was tuned on little data is better on what it has not seen where its weights lie
    on the straight line to those that were trained on much. Source: Wortsman et al., Robust
    fine-tuning of zero-shot models, CVPR 2022; that heads stay as they are is our choice, for they
    had no start worth keeping.

    Args:
        network: The trained network; changed in place.
        path: What it started from; see :func:`load_initial`.
        share: Of the initial weights, in [0, 1): 0 changes nothing.

    Raises:
        CheckpointError: The initial weights are gone, or are of another model.
    """
    initial = copy.deepcopy(network)
    load_initial(initial, path)
    start = dict(initial.backbone.named_parameters())
    for name, weight in network.backbone.named_parameters():
        if name.startswith(_MIXED):
            weight.lerp_(start[name], share)

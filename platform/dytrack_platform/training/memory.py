"""Train and validate on pictures that lie in a device's memory (``data.resident``)."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch

from dytrack_model.config import ModelConfig
from dytrack_model.exits.heads import hann_window
from dytrack_model.network import DyTrackNetwork
from dytrack_platform.config.locations import rooted
from dytrack_platform.config.schema import (
    DataConfig,
    ExperimentConfig,
    OverlayConfig,
    ResidentSource,
)
from dytrack_platform.datasets.resident.load import (
    Pictures,
    Resident,
    load,
    read_pictures,
    shots_of,
    wanted,
)
from dytrack_platform.datasets.resident.store import PictureStore, build
from dytrack_platform.datasets.resident.stream import ResidentStream
from dytrack_platform.errors import DataError
from dytrack_platform.storage.tree import Tree
from dytrack_platform.training.closed_loop import (
    Film,
    ManyTargets,
    Tracked,
    always,
    film_of,
    follow,
)
from dytrack_platform.training.distributed import DistributedContext
from dytrack_platform.training.metrics import dtype_of
from dytrack_platform.training.objective import TrainModule

_PLAIN = OverlayConfig(
    distractors=0.0, hidden=0.0, loose_template=0.0, tint=0.0, contrast=0.0, blur=0.0
)


def stream(config: ExperimentConfig, context: DistributedContext, subset: str) -> ResidentStream:
    """Return this worker's pairs; those of validation are plain and always the same."""
    data, seed = config.data, config.seed
    if subset == "validation":
        data = replace(
            data,
            resident=data.resident_validation or data.resident,
            resident_validation=(),
            overlay=_PLAIN,
            grayscale_prob=0.0,
            flip=0.0,
            brightness=0.0,
            pairs_per_epoch=max(data.validation_pairs, config.train.batch_size),
        )
        seed += 1_000_003  # other pairs than training's, where both draw from one source
    return ResidentStream(
        data,
        config.model,
        _resident(rooted(data, data.resident), sizes_of(config.model), context.device),
        seed=seed,
        batch_size=config.train.batch_size,
        rank=context.rank,
        world=context.world,
    )


def check(data: DataConfig) -> None:
    """List what ``data.resident`` and ``data.resident_validation`` name, without decoding it.

    Raises:
        DataError: A folder is missing, or nothing in it can be used.
    """
    for source in rooted(data, (*data.resident, *data.resident_validation)):
        if source.dataset == "cutouts":
            index = Tree(source.root)
            if not index.is_file("index.json"):
                raise DataError(f"{source.root}: holds no index.json that lists cut-outs")
        else:
            wanted(source, [])


def closed_loop(
    config: ExperimentConfig, module: TrainModule, device: torch.device
) -> tuple[dict[str, float], list[Tracked]]:
    """Follow the targets of ``data.resident_validation``, at every fixed exit.

    Returns:
        ``exit6/tracked_iou`` and the like: the mean over sequences of a sequence's mean IoU after
        its first frame; and the tracks at full depth.
    """
    was_training = module.training
    many, films = followed(config, module, device)
    scores = {}
    for index, depth in enumerate(config.model.exits):
        tracks = follow(many, films, always(index, films))
        means = [np.nanmean(track.own_iou) for track in tracks]
        scores[f"exit{depth}/tracked_iou"] = float(np.mean(means))
    module.train(was_training)
    return scores, tracks


def sizes_of(model: ModelConfig) -> ModelConfig:
    """Keep what reading depends on, so that trackers of one size share what was read."""
    return ModelConfig(
        patch=model.patch,
        template_size=model.template_size,
        search_size=model.search_size,
        template_factor=model.template_factor,
        search_factor=model.search_factor,
    )


@lru_cache(maxsize=2)
def _resident(
    sources: tuple[ResidentSource, ...], sizes: ModelConfig, device: torch.device
) -> Resident:
    return load(DataConfig(resident=sources), sizes, device)


def followed(
    config: ExperimentConfig, module: TrainModule, device: torch.device
) -> tuple[ManyTargets, tuple[Film, ...]]:
    """Return the films of ``data.resident_validation`` and what follows their targets.

    The module is put into evaluation mode.
    """
    pictures, films = _films(rooted(config.data, config.data.resident_validation), device)
    module.eval()
    half = dtype_of(config.train.precision, device) != torch.float32
    return many_targets(module.network, pictures, half=half), films


def many_targets(network: DyTrackNetwork, pictures: PictureStore, *, half: bool) -> ManyTargets:
    """Make what follows targets in ``pictures``, under the tracker's own window."""
    return ManyTargets(network, pictures, hann_window(network.config.map_size, 1.0), half=half)


@lru_cache(maxsize=1)
def _films(
    sources: tuple[ResidentSource, ...], device: torch.device
) -> tuple[PictureStore, tuple[Film, ...]]:
    pictures, films, _ = films_of(sources, device)
    return pictures, films


def films_of(
    sources: tuple[ResidentSource, ...], device: torch.device, most: int | None = None
) -> tuple[PictureStore, tuple[Film, ...], tuple[str, ...]]:
    """Read raw sequences into memory, ``most`` frames of each at most.

    Returns:
        The pictures, the films, and the names of sequences that cannot be used as films: a frame
        does not decode, or fewer than two show their target.

    Raises:
        DataError: A folder or a split is missing, or no sequence can be used.
    """
    pictures = Pictures()
    films, left_out = [], []
    for source in sources:
        sequences = wanted(source)
        read_pictures(sequences, pictures, source.longest_side, most)
        for sequence in sequences:
            length = min(len(sequence), most or len(sequence))
            paths = [sequence.frames.path(index) for index in range(length)]
            numbers = np.array([pictures.numbers[p] for p in paths if p in pictures.numbers])
            shots = shots_of(sequence, pictures, 1.0)
            if len(numbers) < length or len(shots.numbers) < 2:
                left_out.append(sequence.name)
                continue
            height, width = pictures.pixels[numbers[0]].shape[:2]
            films.append(film_of(shots, numbers, (width, height)))
    if not films:
        raise DataError(f"{sources[0].root}: no sequence can be followed: {', '.join(left_out)}")
    return build(pictures.pixels, device), tuple(films), tuple(left_out)

"""Read raw datasets into memory: every picture once, and which targets are to be seen in it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatch
from itertools import islice

import cv2
import numpy as np
import torch

from dytrack_model.config import ModelConfig
from dytrack_platform.config.schema import DataConfig, ResidentSource
from dytrack_platform.datasets import readers
from dytrack_platform.datasets.io.text import usable_boxes
from dytrack_platform.datasets.resident.draws import Group, Shots, Things
from dytrack_platform.datasets.resident.masks import CutOut, read_coco, read_folder
from dytrack_platform.datasets.resident.render import Floats, Integers
from dytrack_platform.datasets.resident.store import PictureStore, build
from dytrack_platform.datasets.sequence import Fault, Pixels, VideoSequence
from dytrack_platform.errors import DataError
from dytrack_platform.storage.tree import Tree

_THREADS = 8


@dataclass(frozen=True, slots=True)
class Resident:
    """What training draws from."""

    pictures: PictureStore
    groups: tuple[Group, ...]
    cut_outs: PictureStore | None
    things: Things | None
    faults: tuple[Fault, ...]
    """What had to be passed over."""


@dataclass(slots=True)
class Pictures:
    """Pictures while they are being read."""

    pixels: list[Pixels] = field(default_factory=list)
    scales: list[float] = field(default_factory=list)
    """Pixels here for one of the file."""
    numbers: dict[str, int] = field(default_factory=dict)
    """By the picture's path: several targets share one."""

    def add(self, path: str, pixels: Pixels, longest_side: int) -> None:
        """Keep a picture, made smaller where it is larger than asked for."""
        height, width = pixels.shape[:2]
        scale = min(1.0, longest_side / max(height, width))
        if scale < 1:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
        self.numbers[path] = len(self.pixels)
        self.pixels.append(pixels)
        self.scales.append(scale)


def load(data: DataConfig, model: ModelConfig, device: torch.device) -> Resident:
    """Read the folders that ``data.resident`` names.

    Raises:
        DataError: A folder is missing, or nothing in it can be used.
    """
    pictures = Pictures()
    faults: list[Fault] = []
    groups: list[Group] = []
    things: list[CutOut] = []
    for source in data.resident:
        if source.dataset == "cutouts":
            things += read_folder(Tree(source.root))
            continue
        sequences = wanted(source, faults)
        read_pictures(sequences, pictures, source.longest_side)
        groups.append(_group(source, sequences, pictures, _smallest(model)))
        if source.masks:
            things += read_coco(Tree(source.root), source.split or "train", source.mask_file)
    if not groups:
        raise DataError("data.resident: names no folder with frames or pictures")
    sizes = np.array([picture.shape[1::-1] for picture in pictures.pixels], np.float64)
    grounds = np.flatnonzero(sizes.min(axis=1) >= model.search_size // 2)
    return Resident(
        pictures=build(pictures.pixels, device),
        groups=tuple(groups),
        cut_outs=build([thing.picture for thing in things], device) if things else None,
        things=_things(things, grounds, sizes[grounds]) if things else None,
        faults=tuple(faults),
    )


def wanted(source: ResidentSource, faults: list[Fault] | None = None) -> list[VideoSequence]:
    """List a source's sequences whose names its patterns let pass.

    Raises:
        DataError: The folder or the split is missing, or no name passes.
    """

    def passes(name: str) -> bool:
        chosen = not source.include or any(fnmatch(name, pattern) for pattern in source.include)
        return chosen and not any(fnmatch(name, pattern) for pattern in source.exclude)

    found = readers.read(source.dataset, source.root, source.split, faults)
    sequences = [sequence for sequence in found if passes(sequence.name)]
    if not sequences:
        raise DataError(
            f"{source.root}: no sequence of split {source.split!r} passes include "
            f"{source.include} and exclude {source.exclude}"
        )
    return sequences


def read_pictures(
    sequences: Sequence[VideoSequence],
    pictures: Pictures,
    longest_side: int,
    most: int | None = None,
) -> None:
    """Decode what is not there yet, ``most`` frames of each; what does not decode is left out."""
    fresh: dict[str, VideoSequence] = {}
    for sequence in sequences:
        path = sequence.frames.path(0)
        if path not in pictures.numbers:
            fresh.setdefault(path, sequence)
    with ThreadPoolExecutor(_THREADS) as pool:  # OpenCV lets go of the interpreter
        films = pool.map(lambda one: list(islice(one.frames.iterate(), most)), fresh.values())
        for sequence, film in zip(fresh.values(), films, strict=True):
            for index, frame in enumerate(film):
                if frame is not None:
                    pictures.add(sequence.frames.path(index), frame, longest_side)


def shots_of(sequence: VideoSequence, pictures: Pictures, least: float) -> Shots:
    """Return a sequence's frames that were read and show their target, none if there is none.

    Args:
        sequence: The sequence.
        pictures: What was read.
        least: Shorter side in pixels below which a box is not used.
    """
    paths = [sequence.frames.path(index) for index in range(len(sequence))]
    there = np.array([path in pictures.numbers for path in paths])
    numbers = np.array([pictures.numbers.get(path, 0) for path in paths])
    scales = np.array([pictures.scales[number] for number in numbers])
    boxes = sequence.boxes_xywh * scales[:, None]
    usable = there & sequence.visible & usable_boxes(boxes)
    usable &= np.nan_to_num(boxes[:, 2:]).min(axis=1) >= least
    kept = np.flatnonzero(usable)
    return Shots(
        name=f"{sequence.dataset}/{sequence.name}",
        pictures=numbers[kept],
        numbers=kept,
        boxes_xywh=boxes[kept],
    )


def _group(
    source: ResidentSource, sequences: Sequence[VideoSequence], pictures: Pictures, least: float
) -> Group:
    found = [
        (shots, sequence.object_class or "")
        for sequence in sequences
        if len((shots := shots_of(sequence, pictures, least)).numbers)
    ]
    if not found:
        raise DataError(f"{source.root}: not one target of split {source.split!r} can be used")
    # Kinds of things are balanced; videos, which are few, count alike.
    stills = all(len(shots.numbers) == 1 for shots, _ in found)
    names = [kind for _, kind in found] if stills else [""] * len(found)
    return Group(source.weight, tuple(shots for shots, _ in found), _balanced(names))


def _things(things: Sequence[CutOut], grounds: Integers, sizes: Floats) -> Things:
    kinds = np.unique([thing.category for thing in things], return_inverse=True)[1]
    return Things(
        hulls=np.stack([thing.hull for thing in things]),
        kinds=np.asarray(kinds, np.int64),
        chances=_balanced([thing.category for thing in things]),
        grounds=grounds,
        ground_sizes=sizes,
    )


def _balanced(names: Sequence[str]) -> Floats:
    """Return a chance for each entry so that a category's share grows with its size's root."""
    _, numbers, counts = np.unique(np.array(names), return_inverse=True, return_counts=True)
    chances = 1 / np.sqrt(counts[numbers])
    return np.asarray(chances / chances.sum(), np.float64)


def _smallest(model: ModelConfig) -> float:
    """Return the shorter side in pixels below which a box says too little of its target."""
    return max(3.0, model.template_size / model.template_factor / 14)

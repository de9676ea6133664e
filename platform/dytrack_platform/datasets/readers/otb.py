"""OTB-100.

::

    ROOT/Basketball/{groundtruth_rect.txt, img/0001.jpg ...}

Boxes come with commas, tabs or both; where a sequence has two targets, as
``groundtruth_rect.1.txt`` and ``.2.txt``, they are named ``Jogging-1`` and ``Jogging-2``. Some
sequences use a part of their images; the parts are those of the owner's toolkit.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from dytrack_platform.datasets.io.frames import image_frames
from dytrack_platform.datasets.readers._reading import (
    assemble,
    each,
    listed,
    open_root,
    part_of,
    read_boxes,
)
from dytrack_platform.datasets.sequence import Fault, VideoSequence
from dytrack_platform.errors import DataError
from dytrack_platform.storage.tree import Tree

DATASET = "otb"

_PARTS = {
    "BlurCar1": (247, 988),
    "BlurCar3": (3, 359),
    "BlurCar4": (18, 397),
    "Board": (1, 698),
    "David": (300, 770),
    "Diving": (1, 215),
    "Football1": (1, 74),
    "Freeman3": (1, 460),
    "Freeman4": (1, 283),
    "Tiger1": (6, 354),
}
"""First and last image that the owner's toolkit uses, where these are not all."""
_ROWS_BEFORE = {"Tiger1": 354}
"""Rows of a file of boxes that starts before the part; some copies have had them cut off."""


def read(
    root: str, split: str | None = None, faults: list[Fault] | None = None
) -> Iterator[VideoSequence]:
    """Read OTB-100.

    Args:
        root: Folder or URL that holds the sequence folders.
        split: Stem of a list file in the root, or None for every sequence that is there.
        faults: Filled with what had to be passed over; without it, faults are logged.

    Raises:
        DataError: The root is missing or holds no sequence, or the list is missing or empty.
    """
    tree = open_root(root)
    targets = {
        key: (folder, file)
        for folder in tree.names()
        if tree.is_folder(f"{folder}/img")
        for key, file in _targets(tree, folder)
    }
    if not targets:
        raise DataError(f"{root}: holds no folder NAME/ with img/ and groundtruth_rect.txt")
    names = listed(tree, f"{split}.txt") if split else sorted(targets)
    keys = {_plain(key): key for key in targets}

    def one(name: str) -> VideoSequence:
        key = keys.get(_plain(name))
        if key is None:
            raise DataError(f"{root}: has no sequence {name}, though the split's list names it")
        return _sequence(tree, key, *targets[key])

    return each(DATASET, names, one, faults)


def _plain(name: str) -> str:
    """Tools write Jogging-1, jogging_1 and Jogging.1 for the same target."""
    return name.lower().replace("_", "-").replace(".", "-")


def _targets(tree: Tree, folder: str) -> list[tuple[str, str]]:
    """Name a folder's targets and their files; an empty file is no target."""
    files = [
        name
        for name in tree.names(folder)
        if name.startswith("groundtruth_rect")
        and name.endswith(".txt")
        and tree.read_bytes(f"{folder}/{name}").strip()
    ]
    if len(files) == 1:  # Human4 has one target in a file numbered 2
        return [(folder, files[0])]
    return [(f"{folder}-{number}", file) for number, file in enumerate(files, start=1)]


def _sequence(tree: Tree, key: str, folder: str, file: str) -> VideoSequence:
    inside = tree / folder
    frames = image_frames(inside, "img", numbered=True)
    rows = read_boxes(inside, file)
    if folder in _PARTS:
        first, last = _PARTS[folder]
        frames = part_of(frames, first, last - first + 1)
    omitted = _PARTS[folder][0] - 1 if len(rows) == _ROWS_BEFORE.get(folder) else 0
    rows = replace(
        rows,
        boxes_xywh=rows.boxes_xywh[omitted:],
        unreadable=[row - omitted for row in rows.unreadable if row >= omitted],
        blank=[row - omitted for row in rows.blank if row >= omitted],
    )
    return assemble(
        dataset=DATASET,
        name=key,
        frames=frames,
        rows=rows,
        absent=np.zeros(len(rows), bool),
    )

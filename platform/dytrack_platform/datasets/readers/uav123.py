"""UAV123 and UAV20L.

::

    ROOT/anno/UAV123/bike1.txt, ROOT/anno/UAV20L/bike1.txt
    ROOT/anno/UAV123/att/bike1.txt                             optional, one row of 12 flags
    ROOT/data_seq/UAV123/bike1/000001.jpg

Boxes are counted from 1; a row of NaN means that the target is out of view. Several sequences of
UAV123 are parts of one folder of images.
"""

from collections.abc import Iterator

import numpy as np

from dytrack_platform.datasets.io.frames import image_frames
from dytrack_platform.datasets.io.text import parse_labels
from dytrack_platform.datasets.readers._reading import (
    assemble,
    each,
    open_root,
    part_of,
    read_boxes,
)
from dytrack_platform.datasets.sequence import Fault, VideoSequence
from dytrack_platform.errors import DataError
from dytrack_platform.storage.tree import Tree

DATASET = "uav123"
LONG = "uav20l"

_ATTRIBUTES = ("SV", "ARC", "LR", "FM", "FOC", "POC", "OV", "BC", "IV", "VC", "CM", "SOB")
"""Columns of the owner's files of attributes."""
_STARTS = {
    "bird1": (1, 775, 1573),
    "car1": (1, 751, 1627),
    "car16": (1, 415),
    "car6": (1, 487, 1807, 2953, 3925),
    "car8": (1, 1357),
    "group1": (1, 1333, 2515, 3925),
    "group2": (1, 907, 1771),
    "group3": (1, 1567, 2827, 4369),
    "person12": (1, 601),
    "person14": (1, 847, 1813),
    "person17": (1, 1501),
    "person19": (1, 1243, 2791),
    "person2": (1, 1189),
    "person4": (1, 1501),
    "person5": (1, 877),
    "person7": (1, 1249),
    "person8": (1, 1075),
    "truck4": (1, 577),
    "uav1": (1, 1555, 2473),
}
"""Number of the first image of each part (``car1_1``, ``car1_2``, ...) of a shared folder."""


def read(
    root: str, split: str | None = None, faults: list[Fault] | None = None
) -> Iterator[VideoSequence]:
    """Read UAV123.

    Args:
        root: Folder or URL that holds ``anno`` and ``data_seq``.
        split: ``test`` or None; the benchmark has one split.
        faults: Filled with what had to be passed over; without it, faults are logged.

    Raises:
        DataError: The root or its annotations are missing, or another split is asked for.
    """
    return _read(DATASET, "UAV123", root, split, faults)


def read_long(
    root: str, split: str | None = None, faults: list[Fault] | None = None
) -> Iterator[VideoSequence]:
    """Read UAV20L, 20 long sequences over the same images; see :func:`read`."""
    return _read(LONG, "UAV20L", root, split, faults)


def _read(
    dataset: str, folder: str, root: str, split: str | None, faults: list[Fault] | None
) -> Iterator[VideoSequence]:
    if split not in (None, "test"):
        raise DataError(f"split {split!r}: {folder} has one split, test")
    tree = open_root(root)
    files = [name for name in tree.names(f"anno/{folder}") if name.endswith(".txt")]
    if not files:
        raise DataError(f"{tree.path(f'anno/{folder}')}: holds no annotation")
    names = [name.removesuffix(".txt") for name in files]
    return each(dataset, names, lambda name: _sequence(dataset, folder, tree, name), faults)


def _sequence(dataset: str, folder: str, tree: Tree, name: str) -> VideoSequence:
    rows = read_boxes(tree, f"anno/{folder}/{name}.txt")
    images, start = name, 1
    base, _, part = name.rpartition("_")
    if dataset == DATASET and base in _STARTS and part.isdecimal():
        if not 1 <= int(part) <= len(_STARTS[base]):
            raise DataError(f"{name}: UAV123 has {len(_STARTS[base])} parts of {base}")
        images, start = base, _STARTS[base][int(part) - 1]
    frames = image_frames(tree, f"data_seq/UAV123/{images}", numbered=True, first=1)
    absent = np.asarray(np.isnan(rows.boxes_xywh).all(axis=1))
    absent[rows.unreadable] = False
    return assemble(
        dataset=dataset,
        name=name,
        frames=part_of(frames, start, len(rows)) if images != name else frames,
        rows=rows,
        absent=absent,
        attributes=_attributes(tree, f"anno/{folder}/att/{name}.txt"),
    )


def _attributes(tree: Tree, inside: str) -> tuple[str, ...]:
    if not tree.is_file(inside):
        return ()
    flags = parse_labels(tree.read_text(inside)).tolist()
    if len(flags) != len(_ATTRIBUTES):
        raise DataError(
            f"{tree.path(inside)}: must hold {len(_ATTRIBUTES)} flags, got {len(flags)}"
        )
    return tuple(name for name, flag in zip(_ATTRIBUTES, flags, strict=True) if flag)

"""VOT, from the first challenges to the multi-object ones.

::

    ROOT/sequences/list.txt (or ROOT/list.txt)
    ROOT/sequences/SEQ/{sequence, color/00000001.jpg, groundtruth.txt or groundtruth_OBJECT.txt,
                        TAG.tag (or .label)}
    ROOT/SEQ/{00000001.jpg, groundtruth.txt}     legacy

A region is a rectangle, a polygon or a mask; its box is the region's extent. A code, a region of
NaN, and rows missing at the end mean that the region is not known.
"""

from collections.abc import Iterator

import numpy as np

from dytrack_platform.datasets.io.frames import IMAGE_SUFFIXES, ImageFrames, image_frames
from dytrack_platform.datasets.io.regions import parse_region, region_box
from dytrack_platform.datasets.io.text import lines, parse_labels
from dytrack_platform.datasets.readers._reading import Rows, assemble, each, listed, open_root
from dytrack_platform.datasets.sequence import Fault, VideoSequence
from dytrack_platform.errors import DataError
from dytrack_platform.storage.tree import Tree

DATASET = "vot"


def read(
    root: str, split: str | None = None, faults: list[Fault] | None = None
) -> Iterator[VideoSequence]:
    """Read a VOT workspace or sequence folder.

    Args:
        root: Workspace, or the folder that holds ``list.txt``.
        split: Stem of another list file beside ``list.txt``; None or ``test`` for that one.
        faults: Filled with what had to be passed over; without it, faults are logged.

    Raises:
        DataError: The root or the list is missing or empty.
    """
    tree = open_root(root)
    if tree.is_folder("sequences"):
        tree = tree / "sequences"
    name_list = f"{split}.txt" if split and tree.is_file(f"{split}.txt") else "list.txt"
    if split not in (None, "test") and name_list == "list.txt":
        raise DataError(f"{tree.root}: has no list {split}.txt")
    targets = {
        key: (name, file) for name in listed(tree, name_list) for key, file in _targets(tree, name)
    }
    return each(DATASET, targets, lambda key: _sequence(tree, key, *targets[key]), faults)


def _targets(tree: Tree, name: str) -> list[tuple[str, str]]:
    """Name a sequence's objects and their files of regions."""
    objects = []
    if tree.is_folder(name):
        for file in tree.names(name):
            if file.startswith("groundtruth_") and file.endswith(".txt"):
                identifier = file.removeprefix("groundtruth_").removesuffix(".txt")
                objects.append((f"{name}.{identifier}", file))
    if not objects or tree.is_file(f"{name}/groundtruth.txt"):
        return [(name, "groundtruth.txt")]
    return objects


def _sequence(tree: Tree, key: str, name: str, file: str) -> VideoSequence:
    inside = tree / name
    frames = _frames(inside)
    rows = lines(inside.read_text(file))
    if not rows:
        raise DataError(f"{inside.path(file)}: holds no region")
    boxes = np.full((max(len(rows), len(frames)), 4), np.nan)
    bad = []
    for index, row in enumerate(rows):
        try:
            box = region_box(parse_region(row))
        except ValueError:
            bad.append(index)
            continue
        if box is not None:
            boxes[index] = box
    absent = np.isnan(boxes).all(axis=1)
    absent[bad] = False
    return assemble(
        dataset=DATASET,
        name=key,
        frames=frames,
        rows=Rows(boxes_xywh=boxes, unreadable=bad, file=inside.path(file)),
        absent=absent,
        attributes=_tags(inside),
    )


def _frames(inside: Tree) -> ImageFrames:
    pattern = "color/%08d.jpg"
    if inside.is_file("sequence"):
        for line in lines(inside.read_text("sequence")):
            key, _, value = line.partition("=")
            if key.strip() == "channels.color":
                pattern = value.strip()
    folder = pattern.rpartition("/")[0]
    if folder and inside.is_folder(folder):
        return image_frames(inside, folder, numbered=True, first=1)
    if any(name.lower().endswith(IMAGE_SUFFIXES) for name in inside.names()):
        return image_frames(inside, "", numbered=True, first=1)
    raise DataError(f"{inside.root}: has neither {folder or 'color'}/ nor images of its own")


def _tags(inside: Tree) -> tuple[str, ...]:
    """Name the tags that are set on any frame."""
    found = []
    for file in inside.names():
        stem, _, suffix = file.rpartition(".")
        if suffix in ("tag", "label") and parse_labels(inside.read_text(file)).any():
            found.append(stem)
    return tuple(found)

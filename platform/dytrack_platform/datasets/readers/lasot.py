"""LaSOT, and LaSOText in the same tree.

::

    ROOT/airplane/airplane-1/{groundtruth.txt, full_occlusion.txt, out_of_view.txt, nlp.txt,
                              img/00000001.jpg ...}
    ROOT/training_set.txt, testing_set.txt

Boxes are whole numbers counted from 1 and stay so. A frame is absent where the target is fully
occluded or out of view. Folders that were unpacked without their class (``ROOT/airplane-1``)
are read too.
"""

from collections.abc import Iterator

from dytrack_platform.datasets.io.frames import image_frames
from dytrack_platform.datasets.readers._reading import (
    assemble,
    each,
    listed,
    open_root,
    read_boxes,
)
from dytrack_platform.datasets.sequence import Fault, VideoSequence
from dytrack_platform.errors import DataError
from dytrack_platform.storage.tree import Tree

DATASET = "lasot"
EXTENSION = "lasotext"
_LISTS = {"train": "training_set.txt", "test": "testing_set.txt"}


def read(
    root: str, split: str | None = None, faults: list[Fault] | None = None
) -> Iterator[VideoSequence]:
    """Read a split of LaSOT.

    Args:
        root: Folder or URL that holds the class folders.
        split: train, test, the stem of another list file in the root, or None for every
            sequence that is there.
        faults: Filled with what had to be passed over; without it, faults are logged.

    Raises:
        DataError: The root is missing, or the split's list is missing or empty (downloads by
            category come without lists).
    """
    return _read(DATASET, root, split, faults)


def read_extension(
    root: str, split: str | None = None, faults: list[Fault] | None = None
) -> Iterator[VideoSequence]:
    """Read LaSOText, which has the same tree and is all test; see :func:`read`."""
    is_whole = split == "test" and not Tree(root).is_file(_LISTS["test"])
    return _read(EXTENSION, root, None if is_whole else split, faults)


def _read(
    dataset: str, root: str, split: str | None, faults: list[Fault] | None
) -> Iterator[VideoSequence]:
    tree = open_root(root)
    names = listed(tree, _LISTS.get(split, f"{split}.txt")) if split else _found(tree)
    return each(dataset, names, lambda name: _sequence(dataset, tree, name), faults)


def _found(tree: Tree) -> list[str]:
    names = []
    for category in tree.names():
        if not tree.is_folder(category):
            continue
        if tree.is_folder(f"{category}/img"):
            names.append(category)
            continue
        inside = [n for n in tree.names(category) if tree.is_folder(f"{category}/{n}")]
        names += sorted(inside, key=lambda name: (len(name), name))
    if not names:
        raise DataError(f"{tree.root}: holds no sequence folder CLASS/CLASS-1/img")
    return names


def _sequence(dataset: str, tree: Tree, name: str) -> VideoSequence:
    category = name.rsplit("-", 1)[0]
    nested = f"{category}/{name}"
    inside = tree / (nested if tree.is_folder(nested) else name)
    rows = read_boxes(inside, "groundtruth.txt")
    absent = rows.labels(inside, "full_occlusion.txt") > 0
    absent |= rows.labels(inside, "out_of_view.txt") > 0
    return assemble(
        dataset=dataset,
        name=name,
        frames=image_frames(inside, "img", numbered=True, first=1),
        rows=rows,
        absent=absent,
        flagged=absent,
        object_class=category,
    )

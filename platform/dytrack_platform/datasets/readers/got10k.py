"""GOT-10k, as published, and every folder in its layout (what the synthetic maker writes).

::

    ROOT/{train,val,test}/list.txt
    ROOT/val/GOT-10k_Val_000001/{00000001.jpg ..., groundtruth.txt, absence.label,
                                 cover.label, cut_by_image.label, meta_info.ini}

The published test split has one box a sequence, of the first frame; the other boxes are NaN here.
The splits ``vottrain`` and ``votval`` are parts of train, given by ``ROOT/<split>.txt`` (or
``ROOT/got10k_vot_train_split.txt``, as other programs hand the lists on) with 0-based indices into
``train/list.txt``.
"""

import json
from collections.abc import Iterator

from dytrack_platform.datasets.io.frames import image_frames
from dytrack_platform.datasets.io.text import parse_labels
from dytrack_platform.datasets.readers._reading import (
    assemble,
    each,
    first_box_only,
    listed,
    open_root,
    read_boxes,
)
from dytrack_platform.datasets.sequence import Fault, VideoSequence
from dytrack_platform.errors import DataError
from dytrack_platform.storage.tree import Tree

DATASET = "got10k"
_HANDED_ON: dict[str, tuple[str, ...]] = {
    "vottrain": ("got10k_vot_train_split.txt",),
    "votval": ("got10k_vot_val_split.txt",),
}
"""Names under which other programs hand on the index lists."""


def read(
    root: str, split: str | None = "train", faults: list[Fault] | None = None
) -> Iterator[VideoSequence]:
    """Read a split of a folder in GOT-10k's layout.

    A frame counts as visible when its box has an area, ``absence.label`` is 0 and
    ``cover.label`` is above 0.

    Args:
        root: Folder or URL that holds the split folders.
        split: A split folder (train, val, test, ...), or an index list beside them.
        faults: Filled with what had to be passed over; without it, faults are logged.

    Raises:
        DataError: The root, the split or its list is missing or empty.
    """
    tree = open_root(root)
    split = split or "train"
    if tree.is_folder(split):
        folder = tree / split
        names = listed(folder, "list.txt")
    else:
        folder = tree / "train"
        names = _indexed(tree, _index_list(tree, split))
    hidden = split.startswith("test")  # elsewhere, a single box is what damage has left
    return each(DATASET, names, lambda name: _sequence(folder, name, hidden), faults)


def _index_list(tree: Tree, split: str) -> str:
    found = [f"{split}.txt", *_HANDED_ON.get(split, ())]
    for name in found:
        if tree.is_file(name):
            return name
    raise DataError(
        f"{tree.root}: has neither a folder {split} nor an index list {' or '.join(found)}"
    )


def _indexed(tree: Tree, inside: str) -> list[str]:
    names = listed(tree / "train", "list.txt")
    indices = parse_labels(tree.read_text(inside))
    if len(indices) == 0 or indices.min() < 0 or indices.max() >= len(names):
        raise DataError(
            f"{tree.path(inside)}: must hold indices from 0 to {len(names) - 1} into "
            "train/list.txt, one a line"
        )
    return [names[index] for index in indices]


def _sequence(folder: Tree, name: str, hidden: bool) -> VideoSequence:
    inside = folder / name
    frames = image_frames(inside, "", numbered=True, first=1)
    rows = read_boxes(inside, "groundtruth.txt")
    flagged = None
    if hidden and len(rows) == 1 and len(frames) > 1:
        rows, absent = first_box_only(rows, len(frames))
    else:
        absent = rows.labels(inside, "absence.label") > 0
        flagged = rows.labels(inside, "cover.label", fill=8) == 0  # all that the toolkit reads
        absent |= flagged
    return assemble(
        dataset=DATASET,
        name=name,
        frames=frames,
        rows=rows,
        absent=absent,
        flagged=flagged,
        attributes=_attributes(inside),
        object_class=_object_class(inside),
    )


def _attributes(inside: Tree) -> tuple[str, ...]:
    """Read the names of a sequence's challenges, which the synthetic maker writes beside it."""
    if not inside.is_file("attributes.json"):
        return ()
    try:
        names = json.loads(inside.read_text("attributes.json"))["attributes"]
        return tuple(str(name) for name in names)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{inside.path('attributes.json')}: must hold a list 'attributes' ({error!r})"
        ) from error


def _object_class(inside: Tree) -> str | None:
    if not inside.is_file("meta_info.ini"):
        return None
    for line in inside.read_text("meta_info.ini").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "object_class":
            return value.strip() or None
    return None

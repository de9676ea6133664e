"""TNL2K.

::

    ROOT/SEQ/{imgs/*.png or *.jpg, groundtruth.txt, language.txt}
    ROOT/absent/SEQ.txt     optional, from the owner's toolkit; 1 = absent

Image names follow no rule beyond their order. Boxes are counted from 0. Without the toolkit's
flags, a row of zeros or of a size of zero means that the target is absent.
"""

from collections.abc import Iterator

import numpy as np

from dytrack_platform.datasets.io.frames import image_frames
from dytrack_platform.datasets.io.text import usable_boxes
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

DATASET = "tnl2k"


def read(
    root: str, split: str | None = None, faults: list[Fault] | None = None
) -> Iterator[VideoSequence]:
    """Read TNL2K.

    Args:
        root: Folder or URL that holds the sequence folders.
        split: Stem of a list file in the root, or None for every sequence that is there.
        faults: Filled with what had to be passed over; without it, faults are logged.

    Raises:
        DataError: The root is missing or holds no sequence, or the list is missing or empty.
    """
    tree = open_root(root)
    if split:
        names = listed(tree, f"{split}.txt")
    else:
        names = [name for name in tree.names() if tree.is_folder(f"{name}/imgs")]
        if not names:
            raise DataError(f"{root}: holds no folder NAME/ with imgs/ and groundtruth.txt")
    return each(DATASET, names, lambda name: _sequence(tree, name), faults)


def _sequence(tree: Tree, name: str) -> VideoSequence:
    inside = tree / name
    rows = read_boxes(inside, "groundtruth.txt")
    flags = f"absent/{name}.txt"
    flagged = None
    if tree.is_file(flags):
        flagged = rows.labels(tree, flags) > 0
        absent = flagged.copy()
    else:
        absent = ~usable_boxes(rows.boxes_xywh)
    absent[rows.unreadable] = False
    return assemble(
        dataset=DATASET,
        name=name,
        frames=image_frames(inside, "imgs"),
        rows=rows,
        absent=np.asarray(absent, bool),
        flagged=flagged,
    )

"""NFS (Need for Speed), as downloaded and as repacked.

::

    ROOT/airboard_1/30/airboard_1/00001.jpg, ROOT/airboard_1/30/airboard_1.txt   (and under 240)
    ROOT/sequences/airboard_1/00001.jpg, ROOT/anno/nfs_airboard_1.txt            (repacked, 30 fps)

A published row is ``id xmin ymin xmax ymax frame lost occluded generated "label"``: corners, not
sizes. The 30 fps file holds the 240 fps annotation, of which every eighth row counts. Repacked
rows are ``x y w h``.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.datasets.io.frames import image_frames
from dytrack_platform.datasets.io.text import lines, number
from dytrack_platform.datasets.readers._reading import (
    Rows,
    assemble,
    each,
    open_root,
    read_boxes,
)
from dytrack_platform.datasets.sequence import Fault, VideoSequence
from dytrack_platform.errors import DataError
from dytrack_platform.storage.tree import Tree

DATASET = "nfs"
_OTHER_CLIP = "dog_2"


def read(
    root: str, split: str | None = "30", faults: list[Fault] | None = None
) -> Iterator[VideoSequence]:
    """Read NFS.

    Args:
        root: Folder or URL of the download, or of the repacked copy.
        split: Frames per second, 30 (also as ``test``) or 240.
        faults: Filled with what had to be passed over; without it, faults are logged.

    Raises:
        DataError: The root is missing or holds no sequence, or another split is asked for.
    """
    tree = open_root(root)
    rate = "30" if split in (None, "test") else split
    if rate not in ("30", "240"):
        raise DataError(f"split {split!r}: NFS has the splits 30 and 240 (frames per second)")
    if tree.is_folder("anno") and tree.is_folder("sequences"):
        if rate != "30":
            raise DataError(f"{root}: the repacked copy has 30 frames per second only")
        return each(DATASET, tree.names("sequences"), lambda name: _repacked(tree, name), faults)
    names = [name for name in tree.names() if tree.is_folder(f"{name}/{rate}")]
    if not names:
        raise DataError(f"{root}: holds no folder NAME/{rate}")
    return each(DATASET, names, lambda name: _sequence(tree, name, rate), faults)


def _sequence(tree: Tree, name: str, rate: str) -> VideoSequence:
    inside = tree / f"{name}/{rate}"
    rows, lost = _rows(inside, f"{name}.txt")
    frames = image_frames(inside, name, numbered=True, first=1)
    if rate == "30":
        bad = [row // 8 for row in rows.unreadable if row % 8 == 0]
        rows = Rows(boxes_xywh=rows.boxes_xywh[::8], unreadable=bad, file=rows.file)
        lost = lost[::8]
        if name == _OTHER_CLIP:
            raise DataError(
                f"{inside.root}: the published 30 fps clip shows another scene than its boxes"
            )
    return assemble(
        dataset=DATASET,
        name=name,
        frames=frames,
        rows=rows,
        absent=lost,
    )


def _rows(inside: Tree, file: str) -> tuple[Rows, NDArray[np.bool_]]:
    """Read published rows: boxes, and lost flags."""
    rows = lines(inside.read_text(file))
    if not rows:
        raise DataError(f"{inside.path(file)}: holds no box")
    boxes = np.full((len(rows), 4), np.nan)
    lost = np.zeros(len(rows), bool)
    bad = []
    for index, row in enumerate(rows):
        try:
            x1, y1, x2, y2, _, gone = (number(value) for value in row.split()[1:7])
        except ValueError:
            bad.append(index)
            continue
        boxes[index] = x1, y1, x2 - x1, y2 - y1
        lost[index] = gone > 0
    return Rows(boxes_xywh=boxes, unreadable=bad, file=inside.path(file)), lost


def _repacked(tree: Tree, name: str) -> VideoSequence:
    rows = read_boxes(tree, f"anno/nfs_{name}.txt")
    return assemble(
        dataset=DATASET,
        name=name,
        frames=image_frames(tree, f"sequences/{name}", numbered=True, first=1),
        rows=rows,
        absent=np.zeros(len(rows), bool),
    )

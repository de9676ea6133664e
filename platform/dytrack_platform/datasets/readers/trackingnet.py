"""TrackingNet, with frames unpacked or still in the published archives.

::

    ROOT/{TRAIN_0 ... TRAIN_11, TEST}/{anno/VIDEOID_0.txt, zips/VIDEOID_0.zip,
                                       frames/VIDEOID_0/0.jpg 1.jpg ...}

Frames are numbered from 0 without padding. The test split has one box a video. The training
boxes between seconds were interpolated by the owner's tracker and are taken as they are.
"""

from collections.abc import Iterator

import numpy as np

from dytrack_platform.datasets.io.archives import ZipFrames
from dytrack_platform.datasets.io.frames import ImageFrames, image_frames
from dytrack_platform.datasets.io.text import usable_boxes
from dytrack_platform.datasets.readers._reading import (
    assemble,
    each,
    first_box_only,
    open_root,
    read_boxes,
)
from dytrack_platform.datasets.sequence import Fault, VideoSequence
from dytrack_platform.errors import DataError
from dytrack_platform.storage.tree import Tree

DATASET = "trackingnet"


def read(
    root: str, split: str | None = "train", faults: list[Fault] | None = None
) -> Iterator[VideoSequence]:
    """Read a split of TrackingNet.

    A frame counts as visible when its box has an area (the field's rule).

    Args:
        root: Folder or URL that holds TRAIN_0 and the others.
        split: ``train`` for every TRAIN folder that is there, ``test``, or one folder's name.
        faults: Filled with what had to be passed over; without it, faults are logged.

    Raises:
        DataError: The root or the split's folders are missing or hold no annotation.
    """
    tree = open_root(root)
    wanted = (split or "train").upper()
    if wanted == "TRAIN":
        chunks = [name for name in tree.names() if name.startswith("TRAIN_")]
        chunks.sort(key=lambda name: (len(name), name))
    else:
        chunks = [wanted] if tree.is_folder(wanted) else []
    places = {name: chunk for chunk in chunks for name in _annotated(tree, chunk)}
    if not places:
        raise DataError(f"{root}: has no folder for split {split!r} with anno/*.txt")
    hidden = wanted == "TEST"  # elsewhere, a single box is what damage has left
    return each(DATASET, places, lambda name: _sequence(tree / places[name], name, hidden), faults)


def _annotated(tree: Tree, chunk: str) -> list[str]:
    names = tree.names(f"{chunk}/anno")
    return [name.removesuffix(".txt") for name in names if name.endswith(".txt")]


def _sequence(chunk: Tree, name: str, hidden: bool) -> VideoSequence:
    rows = read_boxes(chunk, f"anno/{name}.txt")
    frames = _frames(chunk, name)
    if hidden and len(rows) == 1 and len(frames) > 1:
        rows, absent = first_box_only(rows, len(frames))
    else:
        absent = ~usable_boxes(rows.boxes_xywh)
        absent[rows.unreadable] = False  # a row that cannot be read is a fault, not an absence
    return assemble(
        dataset=DATASET,
        name=name,
        frames=frames,
        rows=rows,
        absent=np.asarray(absent, bool),
    )


def _frames(chunk: Tree, name: str) -> ImageFrames | ZipFrames:
    if chunk.is_folder(f"frames/{name}"):
        return image_frames(chunk, f"frames/{name}", numbered=True, first=0)
    if chunk.is_file(f"zips/{name}.zip"):
        return ZipFrames.open(chunk, f"zips/{name}.zip")
    raise DataError(f"{chunk.root}: has neither frames/{name} nor zips/{name}.zip")

"""A folder of one's own videos, or of image folders.

::

    ROOT/NAME/{video.mp4 (or .mpg, .avi, ...), groundtruth.txt, absent.txt}
    ROOT/NAME/{img/0001.jpg ... (or the images themselves), groundtruth.txt, absent.txt}
    ROOT/train.txt, test.txt, ...

``groundtruth.txt`` holds ``x,y,w,h`` a frame in pixels; ``absent.txt`` (optional) 1 where the
target is not visible. Further targets of the same video are ``groundtruth.2.txt`` and so on; they
become the sequences ``NAME.2`` and so on. A split is a list file in the root.
"""

from collections.abc import Iterator

import numpy as np

from dytrack_platform.datasets.io.frames import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    ImageFrames,
    VideoFrames,
    image_frames,
)
from dytrack_platform.datasets.readers._reading import (
    assemble,
    each,
    listed,
    open_root,
    read_boxes,
)
from dytrack_platform.datasets.sequence import Fault, VideoSequence
from dytrack_platform.errors import DataError
from dytrack_platform.storage.outputs import VIDEO_MARK
from dytrack_platform.storage.tree import Tree

DATASET = "video"


def read(
    root: str, split: str | None = None, faults: list[Fault] | None = None
) -> Iterator[VideoSequence]:
    """Read a folder of videos.

    Args:
        root: Folder that holds a folder for each video.
        split: Stem of a list file in the root, or None for every folder that is there.
        faults: Filled with what had to be passed over; without it, faults are logged.

    Raises:
        DataError: The root or the split's list is missing or empty.
    """
    tree = open_root(root)
    if split:
        names = listed(tree, f"{split}.txt")
    else:
        # What is neither a file nor a folder is a link that leads nowhere, and gets reported.
        names = [name for name in tree.names() if tree.is_folder(name) or not tree.is_file(name)]
        if not names:
            raise DataError(f"{root}: holds no folder NAME/ with a video and groundtruth.txt")
    targets = [target for name in names for target in _targets(tree, name)]
    keys = [key for key, _, _ in targets]
    files = {key: (name, file) for key, name, file in targets}
    return each(DATASET, keys, lambda key: _sequence(tree, key, *files[key]), faults)


def _targets(tree: Tree, name: str) -> list[tuple[str, str, str]]:
    """Name a folder's targets: key of the sequence, folder, file of boxes."""
    targets = [(name, name, "groundtruth.txt")]
    if tree.is_folder(name):
        for file in tree.names(name):
            stem, _, number = file.removesuffix(".txt").partition(".")
            if stem == "groundtruth" and number.isdigit():
                targets.append((f"{name}.{number}", name, file))
    return targets


def _sequence(tree: Tree, key: str, folder: str, file: str) -> VideoSequence:
    inside = tree / folder
    if not tree.is_folder(folder):
        raise DataError(f"{inside.root}: no such folder, or a link that leads nowhere")
    rows = read_boxes(inside, file)
    frames = _frames(inside, len(rows))
    flags = file.replace("groundtruth", "absent")
    absent, flagged = np.zeros(len(rows), bool), None
    if inside.is_file(flags):
        absent = flagged = rows.labels(inside, flags) > 0
    return assemble(
        dataset=DATASET,
        name=key,
        frames=frames,
        rows=rows,
        absent=absent,
        flagged=flagged,
    )


def _frames(inside: Tree, expected: int) -> ImageFrames | VideoFrames:
    names = inside.names()
    videos = [name for name in names if name.lower().endswith(VIDEO_SUFFIXES)]
    if len(videos) > 1:  # somebody looked at a result beside its source
        videos = [name for name in videos if not _is_drawn(inside, name)]
    images = any(name.lower().endswith(IMAGE_SUFFIXES) for name in names)
    folders = [name for name in names if inside.is_folder(name)]
    if len(videos) > 1:
        raise DataError(
            f"{inside.root}: holds {videos[0]} and {videos[1]}: keep the one that counts"
        )
    if videos and images:
        raise DataError(
            f"{inside.root}: holds {videos[0]} and images: keep those that the boxes belong to"
        )
    if videos:
        return VideoFrames.open(inside, videos[0], expected)
    if images:
        return image_frames(inside, "", numbered=True)
    if len(folders) == 1:
        return image_frames(inside, folders[0], numbered=True)
    raise DataError(f"{inside.root}: holds neither a video, nor images, nor one folder of images")


def _is_drawn(inside: Tree, name: str) -> bool:
    """Tell whether dytrack wrote a video: then its frames have boxes drawn on them."""
    with inside.open(name) as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 64))
        return VIDEO_MARK in file.read()

"""What every reader does alike: open the root, skip and report what cannot be used."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.datasets.io.frames import ImageFrames, frame_number
from dytrack_platform.datasets.io.text import box_faults, lines, parse_rows, usable_boxes
from dytrack_platform.datasets.sequence import Boxes, Fault, Frames, VideoSequence
from dytrack_platform.errors import DataError
from dytrack_platform.storage.tree import Tree

_LOG = logging.getLogger(__name__)

# Faults of published data that no program can see, as users reported them to the owners. They
# are reported like any other damage, so that nobody trains on them unknowingly.
_GOT10K_BOXES = [*range(8623, 8638), 9058, 9059]

WRONG_BOXES: dict[str, frozenset[str]] = {
    "got10k": frozenset(f"GOT-10k_Train_{number:06d}" for number in _GOT10K_BOXES),
    "trackingnet": frozenset({"A63BoLTUNAM_0", "a1qoB1eERn0_0"}),
}
"""Sequences of each dataset whose boxes do not follow their target."""

WRONG_FRAMES: dict[str, dict[str, range]] = {
    "got10k": {
        "GOT-10k_Train_001636": range(42, 53),
        "GOT-10k_Train_001638": range(24, 33),
    },
}
"""Frames, by position from 0, that show something else than the rest of their sequence. The
reports count files, from 1."""


def open_root(root: str) -> Tree:
    """Open the folder that the user named.

    Raises:
        DataError: There is no such folder.
    """
    tree = Tree(root)
    if not tree.is_folder():
        raise DataError(f"{root}: no such folder; name the folder that the owner published")
    return tree


def listed(tree: Tree, inside: str) -> list[str]:
    """Read a list file: one name a line.

    Raises:
        DataError: The file is missing or empty.
    """
    if not tree.is_file(inside):
        raise DataError(f"{tree.path(inside)}: no such list of sequences")
    names = lines(tree.read_text(inside))
    if not names:
        raise DataError(f"{tree.path(inside)}: the list of sequences is empty")
    return names


def each(
    dataset: str,
    names: Iterable[str],
    open_one: Callable[[str], VideoSequence],
    faults: list[Fault] | None,
) -> Iterator[VideoSequence]:
    """Open sequences one by one; report those that cannot be used and go on.

    A name that is listed twice gives one sequence. Without a list to report to, faults go to the
    log.
    """
    wrong = WRONG_BOXES.get(dataset, frozenset[str]())
    met = set[str]()
    for name in names:
        try:
            if name in met:
                raise DataError("is listed more than once; it is used once")
            met.add(name)
            if name in wrong:
                raise DataError("its published boxes are known to be wrong")
            sequence = without_wrong_frames(open_one(name))
        except DataError as error:
            report(faults, Fault(dataset=dataset, sequence=name, frame=None, reason=str(error)))
            continue
        for fault in sequence.faults:
            report(faults, fault)
        yield sequence


def report(faults: list[Fault] | None, fault: Fault) -> None:
    """Add a fault to the list, or to the log where there is no list."""
    if faults is not None:
        faults.append(fault)
    else:
        where = fault.sequence if fault.frame is None else f"{fault.sequence} frame {fault.frame}"
        _LOG.warning("%s %s: %s", fault.dataset, where, fault.reason)


def read_boxes(tree: Tree, inside: str) -> tuple[Boxes, list[int]]:
    """Read ``x,y,w,h`` rows and name the rows that are not four numbers.

    Raises:
        DataError: The file is missing or holds no row.
    """
    boxes, bad = parse_rows(tree.read_text(inside))
    if len(boxes) == 0:
        raise DataError(f"{tree.path(inside)}: holds no box")
    return boxes, bad


def first_box_only(boxes_xywh: Boxes, frames: int) -> tuple[Boxes, NDArray[np.bool_]]:
    """Fill up the one box that an owner gives for a hidden test set; later boxes are NaN.

    Returns:
        (frames, 4) boxes, and (frames,) True where the truth is not known.
    """
    filled = np.full((frames, 4), np.nan)
    filled[0] = boxes_xywh[0]
    return filled, np.arange(frames) > 0


def part_of(frames: ImageFrames, first: int, count: int) -> ImageFrames:
    """Take the images numbered ``first`` and on, at most ``count`` of them."""
    names = [name for name in frames.names if frame_number(name) >= first]
    return ImageFrames(frames.tree, tuple(names[:count]))


def assemble(
    *,
    dataset: str,
    name: str,
    frames: Frames,
    boxes_xywh: Boxes,
    absent: NDArray[np.bool_],
    unreadable: list[int],
    flagged: NDArray[np.bool_] | None = None,
    attributes: tuple[str, ...] = (),
    object_class: str | None = None,
) -> VideoSequence:
    """Bring frames and boxes to one length, and find the frames that can be used.

    Boxes without frames and frames without boxes are left out and reported; they are the last
    ones, since both are counted from the start.
    """
    faults = []
    count = min(len(frames), len(boxes_xywh))
    if len(frames) != len(boxes_xywh):
        reason = (
            f"{len(boxes_xywh)} boxes for {len(frames)} frames; only the first {count} are used"
        )
        faults.append(Fault(dataset=dataset, sequence=name, frame=None, reason=reason))
    boxes_xywh, absent = boxes_xywh[:count], absent[:count]
    unreadable = [index for index in unreadable if index < count]
    faults += box_faults(dataset, name, boxes_xywh, ~absent, unreadable)
    return VideoSequence(
        dataset=dataset,
        name=name,
        frames=frames,
        boxes_xywh=boxes_xywh,
        visible=~absent & usable_boxes(boxes_xywh),
        flagged=None if flagged is None else flagged[:count],
        attributes=attributes,
        object_class=object_class,
        faults=tuple(faults),
    )


def without_wrong_frames(sequence: VideoSequence) -> VideoSequence:
    """Count frames that are known to be wrong as not visible, and report them."""
    known = WRONG_FRAMES.get(sequence.dataset, {}).get(sequence.name, range(0))
    frames = [frame for frame in known if frame < len(sequence)]
    if not frames:
        return sequence
    visible = sequence.visible & ~np.isin(np.arange(len(sequence)), frames)
    reason = "the published image is known to be of another scene"
    faults = [
        Fault(dataset=sequence.dataset, sequence=sequence.name, frame=frame, reason=reason)
        for frame in frames
    ]
    return replace(sequence, visible=visible, faults=(*sequence.faults, *faults))

"""What every reader does alike: open the root, skip and report what cannot be used."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.datasets.io.frames import ImageFrames, frame_number
from dytrack_platform.datasets.io.text import (
    box_faults,
    fit_labels,
    lines,
    parse_labels,
    parse_rows,
    usable_boxes,
)
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
            _require_pixels(sequence)
        except DataError as error:
            report(faults, Fault(dataset=dataset, sequence=name, frame=None, reason=str(error)))
            continue
        for fault in sequence.faults:
            report(faults, fault)
        yield sequence


def _require_pixels(sequence: VideoSequence) -> None:
    """Refuse boxes that are shares of the image: all of a video's lie within its first pixel.

    Raises:
        DataError: They do.
    """
    boxes = sequence.boxes_xywh
    if len(boxes) < 2 or boxes.max() >= 1:  # of most no more is looked at; NaN is not
        return
    known = boxes[sequence.visible]
    if len(known) and known.max() < 1:
        raise DataError(
            "every box lies within the first pixel; boxes are x, y, w, h in pixels, not as shares "
            "of the image"
        )


def report(faults: list[Fault] | None, fault: Fault) -> None:
    """Add a fault to the list, or to the log where there is no list."""
    if faults is not None:
        faults.append(fault)
    else:
        where = fault.sequence if fault.frame is None else f"{fault.sequence} frame {fault.frame}"
        _LOG.warning("%s %s: %s", fault.dataset, where, fault.reason)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What the text files of a sequence say, one row a frame."""

    boxes_xywh: Boxes
    """(N, 4) pixels; NaN in rows that are blank or could not be read."""
    unreadable: list[int] = field(default_factory=list)
    """Rows that are not four numbers."""
    blank: list[int] = field(default_factory=list)
    """Rows with nothing in them."""
    file: str = ""
    """Where they stand, for messages."""
    notes: list[str] = field(default_factory=list)
    """What is odd about the files, and what was made of it."""

    def __len__(self) -> int:
        return len(self.boxes_xywh)

    def labels(self, tree: Tree, inside: str, fill: int = 0) -> NDArray[np.int64]:
        """Read one whole number for each row; ``fill`` where there is no file, or too few.

        Raises:
            DataError: A label is not a whole number.
        """
        if not tree.is_file(inside):
            return np.full(len(self), fill)
        found = parse_labels(tree.read_text(inside))
        if len(found) != len(self):
            self.notes.append(f"{inside} has {len(found)} flags for {len(self)} boxes")
        return fit_labels(found, len(self), fill)


def read_boxes(tree: Tree, inside: str) -> Rows:
    """Read ``x,y,w,h`` rows.

    Raises:
        DataError: The file is missing or holds no row.
    """
    table = parse_rows(tree.read_text(inside))
    if len(table.values) == 0:
        raise DataError(f"{tree.path(inside)}: holds no box")
    notes = []
    if table.passed_over:
        more = f" and {len(table.passed_over) - 1} more" if table.passed_over[1:] else ""
        notes.append(f"{inside}: passed over {table.passed_over[0]!r:.60}{more}, not a box")
    return Rows(
        boxes_xywh=table.values,
        unreadable=table.unreadable,
        blank=table.blank,
        file=tree.path(inside),
        notes=notes,
    )


def first_box_only(rows: Rows, frames: int) -> tuple[Rows, NDArray[np.bool_]]:
    """Fill up the one box that an owner gives for a hidden test set; later boxes are NaN.

    Returns:
        ``frames`` rows, and (frames,) True where the truth is not known.
    """
    filled = np.full((frames, 4), np.nan)
    filled[0] = rows.boxes_xywh[0]
    return replace(rows, boxes_xywh=filled), np.arange(frames) > 0


def part_of(frames: ImageFrames, first: int, count: int) -> ImageFrames:
    """Take the images numbered ``first`` and on, at most ``count`` of them."""
    names = [name for name in frames.names if frame_number(name) >= first]
    return ImageFrames(frames.tree, tuple(names[:count]))


def assemble(
    *,
    dataset: str,
    name: str,
    frames: Frames,
    rows: Rows,
    absent: NDArray[np.bool_],
    flagged: NDArray[np.bool_] | None = None,
    attributes: tuple[str, ...] = (),
    object_class: str | None = None,
) -> VideoSequence:
    """Bring frames and boxes to one length, and find the frames that can be used.

    Boxes without frames and frames without boxes are left out and reported; they are the last
    ones, since both are counted from the start. A blank row is a frame without the target where
    rows and frames are as many.

    Raises:
        DataError: There are blank rows, and it is not clear which box belongs to which frame.
    """
    boxes_xywh = rows.boxes_xywh
    if rows.blank and len(frames) != len(boxes_xywh):
        raise DataError(
            f"{rows.file}: {len(boxes_xywh)} rows, {len(rows.blank)} of them blank (the first is "
            f"row {rows.blank[0] + 1}), for {len(frames)} frames: it is not clear which box is "
            "whose; write a row for each frame"
        )
    faults = [Fault(dataset=dataset, sequence=name, frame=None, reason=note) for note in rows.notes]
    absent = absent.copy()
    absent[rows.blank] = True
    count = min(len(frames), len(boxes_xywh))
    if len(frames) != len(boxes_xywh):
        reason = (
            f"{len(boxes_xywh)} boxes for {len(frames)} frames; only the first {count} are used"
        )
        faults.append(Fault(dataset=dataset, sequence=name, frame=None, reason=reason))
    boxes_xywh, absent = boxes_xywh[:count], absent[:count]
    unreadable = [index for index in rows.unreadable if index < count]
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

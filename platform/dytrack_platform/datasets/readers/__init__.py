"""Datasets as their owners publish them: one module for each layout, one call for all.

A reader gives sequences in the owner's order and passes over what cannot be used; what it passed
over it reports.
"""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Protocol

from dytrack_platform.datasets.readers import (
    coco,
    got10k,
    lasot,
    nfs,
    otb,
    tnl2k,
    trackingnet,
    uav123,
    video,
    vot,
)
from dytrack_platform.datasets.sequence import Fault, VideoSequence
from dytrack_platform.errors import DataError


class Reader(Protocol):
    """Reads one dataset's layout."""

    def __call__(
        self, root: str, split: str | None = None, faults: list[Fault] | None = None
    ) -> Iterator[VideoSequence]:
        """Return the split's sequences; see :func:`read`."""
        ...


READERS: dict[str, Reader] = {
    "coco": coco.read,
    "got10k": got10k.read,
    "lasot": lasot.read,
    "lasotext": lasot.read_extension,
    "nfs": nfs.read,
    "otb": otb.read,
    "tnl2k": tnl2k.read,
    "trackingnet": trackingnet.read,
    "uav123": uav123.read,
    "uav20l": uav123.read_long,
    "video": video.read,
    "vot": vot.read,
}
"""Every known layout by the name that ``--dataset`` takes."""


def read(
    dataset: str, root: str, split: str | None = None, faults: list[Fault] | None = None
) -> Iterator[VideoSequence]:
    """Read a dataset.

    Args:
        dataset: A key of :data:`READERS`.
        root: Local folder or URL that the owner published.
        split: The dataset's own name of a split; None for its default.
        faults: Filled, while reading, with what had to be passed over: whole sequences, and
            single frames. Without it, faults are logged.

    Raises:
        DataError: The dataset is unknown, the root or the split is missing, or not one sequence
            can be used.
    """
    if dataset not in READERS:
        near = get_close_matches(dataset, READERS, n=1)
        hint = f"did you mean {near[0]}? known: " if near else "choose one of "
        raise DataError(f"dataset {dataset!r} is not known; {hint}{', '.join(sorted(READERS))}")
    found: list[Fault] = [] if faults is None else faults
    sequences = READERS[dataset](root, split, faults)
    first = next(sequences, None)
    if first is None:
        reason = f"; the first fault: {found[0].reason}" if found else ""
        raise DataError(f"{root}: not one sequence of split {split!r} can be used{reason}")
    yield first
    yield from sequences

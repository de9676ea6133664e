"""The vocabulary of datasets: frames, sequences, and what was found wrong with them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Boxes = NDArray[np.float64]


class Frames(Protocol):
    """The images of one sequence, by position from 0, always RGB."""

    def __len__(self) -> int:
        """Return the number of frames."""
        ...

    def read(self, index: int) -> Pixels:
        """Decode one frame to (H, W, 3) uint8, red first.

        Raises:
            DataError: The frame is missing or does not decode; the message names the file.
        """
        ...

    def iterate(self) -> Iterator[Pixels | None]:
        """Decode every frame in order; ``None`` stands for one that does not decode."""
        ...

    def path(self, index: int) -> str:
        """Name the file of a frame (for messages and links)."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One thing found wrong with a source, in the form of a row of the rejects table."""

    dataset: str
    sequence: str
    frame: int | None
    """Position from 0, or None where the whole sequence is meant."""
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoSequence:
    """One target followed through frames, as a dataset's owner annotated it."""

    dataset: str
    name: str
    frames: Frames
    boxes_xywh: Boxes
    """(N, 4) pixels, corner and size, exactly as annotated: NaN stays NaN, and an owner who counts
    pixels from 1 is left to it, as the field's toolkits do."""
    visible: NDArray[np.bool_]
    """(N,) false where the target is absent or its box cannot be used."""
    flagged: NDArray[np.bool_] | None = None
    """(N,) true where the owner's own flags say absent, as its toolkit reads them: scores need
    these. None where the owner has no such flags."""
    attributes: tuple[str, ...] = ()
    object_class: str | None = None
    faults: tuple[Fault, ...] = field(default=())
    """What the reader had to pass over."""

    def __len__(self) -> int:
        return len(self.boxes_xywh)

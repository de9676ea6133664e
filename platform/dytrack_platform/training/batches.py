"""What the training loop takes: batches of pairs, and a stream that can start anywhere."""

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor


class Batch(Protocol):
    """Pairs as tensors."""

    @property
    def template(self) -> Tensor:
        """(B, 3, T, T) uint8 RGB."""
        ...

    @property
    def search(self) -> Tensor:
        """(B, 3, S, S) uint8 RGB."""
        ...

    @property
    def boxes_cxcywh(self) -> Tensor:
        """(B, 4) float32, in [0, 1] of the search crop."""
        ...

    @property
    def template_boxes_cxcywh(self) -> Tensor:
        """(B, 4) float32, in [0, 1] of the template crop."""
        ...


class Stream(Protocol):
    """A source of batches that can start anywhere."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        ...

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch from a step on."""
        ...

    def close(self) -> None:
        """End what works ahead."""
        ...

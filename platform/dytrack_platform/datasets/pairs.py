"""The stream of pairs that training sees: the same one whatever the number of workers."""

import weakref
from collections.abc import Iterator

from dytrack_model.config import ModelConfig
from dytrack_platform.config import DataConfig
from dytrack_platform.datasets.ahead import Ahead
from dytrack_platform.datasets.producer import PairBatch, PairProducer
from dytrack_platform.datasets.sources import Part

__all__ = ["PairBatch", "PairStream", "Part"]


class PairStream:
    """Batches of pairs from prepared folders, made ahead by threads.

    The pairs depend on seed, epoch and step alone: not on the number of workers or threads, nor
    on where reading started.
    """

    def __init__(
        self,
        data: DataConfig,
        model: ModelConfig,
        *,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        part: Part = "train",
    ) -> None:
        """Open the folders' indices.

        Args:
            data: Folders and how pairs are drawn.
            model: Sizes and factors of the crops.
            seed: Seed of every choice.
            batch_size: Pairs in a step over all workers.
            rank: This worker, from 0.
            world: Number of workers; divides the batch size.
            part: Training pairs, or validation pairs (the same in every epoch, without
                augmentation, from sequences that training never shows).

        Raises:
            ConfigurationError: No folder is named, or the batch does not divide.
            DataError: A folder is not prepared, not finished, or too small for this crop.
        """
        self._producer = PairProducer(
            data, model, seed=seed, batch_size=batch_size, rank=rank, world=world, part=part
        )
        self._depth = data.draws_per_row
        self._position = (-1, 0)
        self._ahead: Ahead[PairBatch] | None = None
        self._finalizer: weakref.finalize[[], PairStream] | None = None
        weakref.finalize(self, self._producer.close)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch; a last batch that would be smaller is left out."""
        return self._producer.steps_per_epoch

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[PairBatch]:
        """Give the epoch's batches from ``start_step`` on; threads work ahead.

        They go on into the next epoch, so that it starts without waiting. One epoch can be read
        at a time.

        Raises:
            DataError: A prepared file is damaged.
            RuntimeError: Another epoch was asked for while this one was being read.
        """
        epoch = 0 if self._producer.part == "validation" else epoch
        if start_step >= self.steps_per_epoch:
            return
        if self._position != (epoch, start_step) or self._ahead is None:
            self.close()
            batches = _endless(self._producer, epoch, start_step)
            self._ahead = Ahead(batches, self._depth)
            self._finalizer = weakref.finalize(self, self._ahead.close)
        ahead = self._ahead
        for step in range(start_step, self.steps_per_epoch):
            batch = ahead.take()
            if batch is None:
                break
            last = step + 1 == self.steps_per_epoch
            self._position = (epoch + 1, 0) if last else (epoch, step + 1)
            yield batch

    def close(self) -> None:
        """End the threads; the stream can be read again."""
        if self._finalizer is not None:
            self._finalizer()
        self._ahead = None


def _endless(producer: PairProducer, epoch: int, start_step: int) -> Iterator[PairBatch]:
    """Give batches of one epoch after the other; those of validation end with their epoch."""
    while True:
        yield from producer.epoch(epoch, start_step)
        if producer.part == "validation":
            return
        epoch, start_step = epoch + 1, 0

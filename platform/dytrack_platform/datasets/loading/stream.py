"""The stream of pairs that training sees: the same one whatever the number of workers.

An epoch is a list of *slots*; a slot is one reading of one clip and gives ``pairs_per_clip``
pairs. Batches come in *chunks* of ``pairs_per_clip`` batches over as many slots as a batch has
pairs: each batch takes one draw of every slot, so a clip is decoded once for all of its draws
and a batch never holds two pairs of one reading. A worker reads its own part of each chunk's
slots. Every choice is seeded by (seed, epoch, slot, draw): any step can be reached directly.

Memory is bounded by two chunks of crops: the one being handed out and the one being made.
"""

import weakref
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dytrack_model.config import ModelConfig
from dytrack_platform.config import DataConfig
from dytrack_platform.datasets.loading.pairs import ClipImages, Pair, draw_pair
from dytrack_platform.datasets.loading.sources import ClipRow, Subset, subset_rows
from dytrack_platform.datasets.prepared.shards import ShardReader, StoredClip
from dytrack_platform.errors import ConfigurationError
from dytrack_platform.storage.tree import Tree

__all__ = ["PairBatch", "PairStream", "Subset"]


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Pairs as tensors."""

    template: Tensor
    """(B, 3, T, T) uint8, red first."""
    search: Tensor
    """(B, 3, S, S) uint8, red first."""
    boxes_cxcywh: Tensor
    """(B, 4) float32, in [0, 1] of the search crop."""
    template_boxes_cxcywh: Tensor
    """(B, 4) float32, in [0, 1] of the template crop."""
    sequences: tuple[str, ...]
    """Where each pair is from, as ``dataset/sequence``."""

    def pinned(self) -> "PairBatch":
        """Return the same pairs in page-locked memory, which a GPU reads while it computes."""
        return PairBatch(
            self.template.pin_memory(),
            self.search.pin_memory(),
            self.boxes_cxcywh.pin_memory(),
            self.template_boxes_cxcywh.pin_memory(),
            self.sequences,
        )


class PairStream:
    """Batches of pairs from prepared folders, made ahead by threads unless ``loader_workers`` is 0.

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
        subset: Subset = "train",
        pin_memory: bool = False,
    ) -> None:
        """Open the folders' indices.

        Args:
            data: Folders and how pairs are drawn.
            model: Sizes and factors of the crops.
            seed: Seed of every choice.
            batch_size: Pairs in a step over all workers.
            rank: This worker, from 0.
            world: Number of workers; divides the batch size.
            subset: Training pairs, or validation pairs (the same in every epoch, without
                augmentation, from sequences that training never shows).
            pin_memory: Put batches into page-locked memory, for training on a GPU.

        Raises:
            ConfigurationError: No folder is named, or the batch does not divide.
            DataError: A folder is not prepared, not finished, or too small for this crop.
        """
        self._producer = PairProducer(
            data,
            model,
            seed=seed,
            batch_size=batch_size,
            rank=rank,
            world=world,
            subset=subset,
            pin_memory=pin_memory,
        )
        # A chunk is made at once, so as many batches ahead keep the thread busy all the time.
        self._depth = data.pairs_per_clip if data.loader_workers else 0
        self._position = (-1, 0)
        self._ahead: _Ahead | None = None
        self._finalizer: weakref.finalize[[], PairStream] | None = None
        weakref.finalize(self, self._producer.close)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch; a last batch that would be smaller is left out."""
        return self._producer.steps_per_epoch

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[PairBatch]:
        """Yield the epoch's batches from ``start_step`` on; threads work ahead.

        They go on into the next epoch, so that it starts without waiting. One epoch can be read
        at a time.

        Raises:
            DataError: A prepared file is damaged.
            RuntimeError: Another epoch was asked for while this one was being read.
        """
        epoch = 0 if self._producer.subset == "validation" else epoch
        if start_step >= self.steps_per_epoch:
            return
        if self._position != (epoch, start_step) or self._ahead is None:
            self.close()
            # The generator holds the producer and not the stream: a stream that nobody holds any
            # more can be collected, and its finalizer then ends the threads.
            batches = _endless(self._producer, epoch, start_step)
            self._ahead = _Ahead(batches, self._depth)
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


class PairProducer:
    """Makes the batches of an epoch in the caller's thread; see :class:`PairStream`."""

    def __init__(
        self,
        data: DataConfig,
        model: ModelConfig,
        *,
        seed: int,
        batch_size: int,
        rank: int,
        world: int,
        subset: Subset,
        pin_memory: bool,
    ) -> None:
        if batch_size % world:
            raise ConfigurationError(
                f"train.batch_size: must be a multiple of {world} workers, got {batch_size}"
            )
        self.subset = subset
        self._pin = pin_memory
        self._data, self._model, self._seed, self._batch = data, model, seed, batch_size
        self._share = slice(rank * batch_size // world, (rank + 1) * batch_size // world)
        self._sources = subset_rows(data, model, subset)
        weights = data.validation if subset == "validation" and data.validation else data.train
        total = sum(source.weight for source in weights)
        self._weights = np.array([source.weight / total for source in weights])
        self._readers: dict[Tree, ShardReader] = {}
        self._pool: ThreadPoolExecutor | None = None
        if data.loader_workers > 1:
            self._pool = ThreadPoolExecutor(data.loader_workers, thread_name_prefix="crops")

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch; a last batch that would be smaller is left out."""
        pairs = self._data.pairs_per_epoch
        if self.subset == "validation":
            pairs = self._data.validation_pairs
        return max(1, pairs // self._batch)

    def close(self) -> None:
        """End the threads that make crops."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def epoch(self, epoch: int, start_step: int) -> Iterator[PairBatch]:
        """Yield an epoch's batches from ``start_step`` on."""
        draws = self._data.pairs_per_clip
        slots = self._slots(epoch)
        step = start_step
        while step < self.steps_per_epoch:
            # A step in the middle of a chunk starts there: only the wanted draws are made, each
            # from its own seed, so that what was skipped need not be drawn.
            chunk = step // draws
            end = min((chunk + 1) * draws, self.steps_per_epoch)
            wanted = range(step - chunk * draws, end - chunk * draws)
            # Slots are numbered over all workers; a worker takes its share of each chunk. With
            # another number of workers the same pairs lie in the same batch.
            numbers = range(self._batch * chunk, self._batch * (chunk + 1))[self._share]
            names = tuple(slots[number].name for number in numbers)
            for pairs in zip(*self._rows(epoch, numbers, slots, wanted), strict=True):
                batch = _batch(pairs, names)
                yield batch.pinned() if self._pin else batch
            step = end

    def _rows(
        self, epoch: int, numbers: range, slots: list[ClipRow], wanted: range
    ) -> list[list[Pair]]:
        """Return for each slot its wanted draws."""

        def draw(number: int, images: ClipImages) -> list[Pair]:
            return [
                draw_pair(
                    images,
                    self._data,
                    self._model,
                    self._rng(epoch, number, one),
                    augment=self.subset == "train",
                )
                for one in wanted
            ]

        # Files are read here, one after the other; only decoding and cropping are spread.
        read = ((number, ClipImages(self._read(slots[number]))) for number in numbers)
        if self._pool is None:
            return [draw(number, images) for number, images in read]
        futures = [self._pool.submit(draw, number, images) for number, images in read]
        return [future.result() for future in futures]

    def _read(self, row: ClipRow) -> StoredClip:
        reader = self._readers.setdefault(row.tree, ShardReader(row.tree))
        return reader.read(row.file, row.row)

    def _rng(self, epoch: int, *position: int) -> np.random.Generator:
        subset = 0 if self.subset == "train" else 1
        # A sequence of integers as a seed is hashed: neighbouring slots and epochs have independent
        # streams, and none has to be drawn to reach another.
        return np.random.default_rng([self._seed, subset, epoch, *position])

    def _slots(self, epoch: int) -> list[ClipRow]:
        """Choose the clips of an epoch: folders by weight, each folder's clips in turn."""
        chunks = -(-self.steps_per_epoch // self._data.pairs_per_clip)
        count = chunks * self._batch
        rng = self._rng(epoch)
        # Folders are drawn by weight for each slot; within a folder clips come in turn, for drawing
        # them at random would show a third of them not at all in an epoch as long as the folder.
        choice = rng.choice(len(self._sources), size=count, p=self._weights)
        slots: list[ClipRow | None] = [None] * count
        for index, rows in enumerate(self._sources):
            places = np.flatnonzero(choice == index)
            order = _in_turn(len(rows), len(places), rng)
            for place, row in zip(places.tolist(), order.tolist(), strict=True):
                slots[place] = rows[row]
        return [slot for slot in slots if slot is not None]


class _Ahead:
    """Produces up to ``depth`` batches before they are asked for, or none where it is 0.

    One thread suffices: decoding and resampling leave Python's lock to the training step. It
    holds no reference to the stream, so that a stream that is forgotten can end it.
    """

    def __init__(self, batches: Iterator[PairBatch], depth: int) -> None:
        self._batches = batches
        self._depth = depth
        self._closed = False
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pairs")
        self._pending: deque[Future[PairBatch | None]] = deque()
        for _ in range(depth):
            self._order()

    def _order(self) -> None:
        self._pending.append(self._pool.submit(next, self._batches, None))

    def take(self) -> PairBatch | None:
        """Return the next batch, or None after the last; an error of the producer is raised here.

        Raises:
            RuntimeError: It was closed.
        """
        if self._closed or (self._depth and not self._pending):
            raise RuntimeError("the stream was started again or closed while it was being read")
        if not self._depth:
            return next(self._batches, None)
        batch = self._pending.popleft().result()
        if batch is not None:
            self._order()
        return batch

    def close(self) -> None:
        """Forget what was produced and end the thread, after the batch it is at."""
        self._closed = True
        self._pool.shutdown(cancel_futures=True)
        self._pending.clear()


def _endless(producer: PairProducer, epoch: int, start_step: int) -> Iterator[PairBatch]:
    """Yield batches of one epoch after the other; those of validation end with their epoch."""
    while True:
        yield from producer.epoch(epoch, start_step)
        if producer.subset == "validation":
            return
        epoch, start_step = epoch + 1, 0


def _in_turn(rows: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return ``count`` indices of rows: every row once in random order, then again."""
    # A new order in each turn: the tail of one turn and the head of the next are not alike.
    turns = [rng.permutation(rows) for _ in range(-(-count // rows))]
    return np.concatenate([*turns, np.empty(0, np.int64)])[:count].astype(np.int64)


def _batch(pairs: tuple[Pair, ...], names: tuple[str, ...]) -> PairBatch:
    template = torch.from_numpy(np.stack([pair.template for pair in pairs]))
    search = torch.from_numpy(np.stack([pair.search for pair in pairs]))
    boxes, in_template = (
        torch.from_numpy(np.stack(found).astype(np.float32))
        for found in (
            [pair.box_cxcywh for pair in pairs],
            [pair.template_box_cxcywh for pair in pairs],
        )
    )
    return PairBatch(
        template.permute(0, 3, 1, 2).contiguous(),
        search.permute(0, 3, 1, 2).contiguous(),
        boxes,
        in_template,
        names,
    )

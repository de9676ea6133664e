"""The stream of pairs that training sees: the same one whatever the number of workers.

An epoch is a list of *slots*; a slot is one reading of one clip and gives ``draws_per_row``
pairs. Batches come in *chunks* of ``draws_per_row`` batches over as many slots as a batch has
pairs: each batch takes one draw of every slot, so a clip is decoded once for all of its draws
and a batch never holds two pairs of one reading. A worker reads its own part of each chunk's
slots. Every choice is seeded by (seed, epoch, slot, draw): any step can be reached directly.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dytrack_model.config import ModelConfig
from dytrack_platform.config import DataConfig
from dytrack_platform.datasets.draws import ClipPictures, Pair, draw_pair
from dytrack_platform.datasets.shards import ShardReader
from dytrack_platform.datasets.sources import ClipRow, Part, part_rows
from dytrack_platform.datasets.tree import Tree
from dytrack_platform.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Pairs as tensors."""

    template: Tensor
    """(B, 3, T, T) uint8, red first."""
    search: Tensor
    """(B, 3, S, S) uint8, red first."""
    boxes_cxcywh: Tensor
    """(B, 4) float32, in [0, 1] of the search crop."""
    sequences: tuple[str, ...]
    """Where each pair is from, as ``dataset/sequence``."""


class PairStream:
    """Batches of pairs from prepared folders, in the same order for every number of workers."""

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
        if batch_size % world:
            raise ConfigurationError(
                f"train.batch_size: must be a multiple of {world} workers, got {batch_size}"
            )
        self._data, self._model = data, model
        self._seed, self._part = seed, part
        self._batch, self._world = batch_size, world
        self._share = slice(rank * batch_size // world, (rank + 1) * batch_size // world)
        self._sources = part_rows(data, model, part)
        weights = data.validation if part == "validation" and data.validation else data.train
        total = sum(source.weight for source in weights)
        self._weights = np.array([source.weight / total for source in weights])

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch; a last batch that would be smaller is left out."""
        pairs = self._data.pairs_per_epoch
        if self._part == "validation":
            pairs = self._data.validation_pairs
        return max(1, pairs // self._batch)

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[PairBatch]:
        """Give the epoch's batches from ``start_step`` on; a thread works ahead.

        Raises:
            DataError: A prepared file is damaged.
        """
        epoch = 0 if self._part == "validation" else epoch
        return _ahead(self._epoch(epoch, start_step), self._data.draws_per_row)

    def _epoch(self, epoch: int, start_step: int) -> Iterator[PairBatch]:
        draws = self._data.draws_per_row
        slots = self._slots(epoch)
        readers: dict[Tree, ShardReader] = {}
        step = start_step
        while step < self.steps_per_epoch:
            chunk, first_draw = divmod(step, draws)
            last_draw = min(draws, self.steps_per_epoch - chunk * draws)
            numbers = range(self._batch * chunk, self._batch * (chunk + 1))[self._share]
            columns: list[list[Pair]] = [[] for _ in range(first_draw, last_draw)]
            for number in numbers:
                row = slots[number]
                reader = readers.setdefault(row.tree, ShardReader(row.tree))
                pictures = ClipPictures(reader.read(row.file, row.row))
                for draw in range(first_draw, last_draw):
                    rng = self._rng(epoch, number, draw)
                    columns[draw - first_draw].append(
                        draw_pair(
                            pictures, self._data, self._model, rng, augment=self._part == "train"
                        )
                    )
            names = tuple(slots[number].name for number in numbers)
            for pairs in columns:
                yield _batch(pairs, names)
            step = (chunk + 1) * draws

    def _rng(self, epoch: int, *position: int) -> np.random.Generator:
        part = 0 if self._part == "train" else 1
        return np.random.default_rng([self._seed, part, epoch, *position])

    def _slots(self, epoch: int) -> list[ClipRow]:
        """Choose the clips of an epoch: folders by weight, each folder's clips in turn."""
        chunks = -(-self.steps_per_epoch // self._data.draws_per_row)
        count = chunks * self._batch
        rng = self._rng(epoch)
        choice = rng.choice(len(self._sources), size=count, p=self._weights)
        slots: list[ClipRow | None] = [None] * count
        for index, rows in enumerate(self._sources):
            places = np.flatnonzero(choice == index)
            order = _in_turn(len(rows), len(places), rng)
            for place, row in zip(places.tolist(), order.tolist(), strict=True):
                slots[place] = rows[row]
        return [slot for slot in slots if slot is not None]


def _in_turn(rows: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Give ``count`` indices of rows: every row once in random order, then again."""
    turns = [rng.permutation(rows) for _ in range(-(-count // rows))]
    return np.concatenate([*turns, np.empty(0, np.int64)])[:count].astype(np.int64)


def _batch(pairs: list[Pair], names: tuple[str, ...]) -> PairBatch:
    template = torch.from_numpy(np.stack([pair.template for pair in pairs]))
    search = torch.from_numpy(np.stack([pair.search for pair in pairs]))
    boxes = torch.from_numpy(np.stack([pair.box_cxcywh for pair in pairs]).astype(np.float32))
    return PairBatch(
        template.permute(0, 3, 1, 2).contiguous(),
        search.permute(0, 3, 1, 2).contiguous(),
        boxes,
        names,
    )


def _ahead(batches: Iterator[PairBatch], depth: int) -> Iterator[PairBatch]:
    """Produce in a thread, at most ``depth`` batches ahead; its error is raised here.

    One thread suffices: decoding and resampling leave Python's lock to the training step.
    """
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pairs")
    try:
        pending = deque(pool.submit(next, batches, None) for _ in range(depth))
        while (batch := pending.popleft().result()) is not None:
            pending.append(pool.submit(next, batches, None))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)

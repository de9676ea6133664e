"""Produce the batches of an epoch from prepared clips, in the caller's thread.

An epoch is a list of *slots*; a slot is one reading of one clip and gives ``draws_per_row``
pairs. Batches come in *chunks* of ``draws_per_row`` batches over as many slots as a batch has
pairs: each batch takes one draw of every slot, so a clip is decoded once for all of its draws
and a batch never holds two pairs of one reading. A worker reads its own part of each chunk's
slots. Every choice is seeded by (seed, epoch, slot, draw): any step can be reached directly.

Memory is bounded by two chunks of crops: the one being handed out and the one being made.
"""

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
from dytrack_platform.datasets.shards import ShardReader, StoredClip
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
    template_boxes_cxcywh: Tensor
    """(B, 4) float32, in [0, 1] of the template crop."""
    sequences: tuple[str, ...]
    """Where each pair is from, as ``dataset/sequence``."""


class PairProducer:
    """Makes batches; see :class:`dytrack_platform.datasets.pairs.PairStream` for its arguments."""

    def __init__(
        self,
        data: DataConfig,
        model: ModelConfig,
        *,
        seed: int,
        batch_size: int,
        rank: int,
        world: int,
        part: Part,
    ) -> None:
        if batch_size % world:
            raise ConfigurationError(
                f"train.batch_size: must be a multiple of {world} workers, got {batch_size}"
            )
        self.part = part
        self._data, self._model, self._seed, self._batch = data, model, seed, batch_size
        self._share = slice(rank * batch_size // world, (rank + 1) * batch_size // world)
        self._sources = part_rows(data, model, part)
        weights = data.validation if part == "validation" and data.validation else data.train
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
        if self.part == "validation":
            pairs = self._data.validation_pairs
        return max(1, pairs // self._batch)

    def close(self) -> None:
        """End the threads that make crops."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def epoch(self, epoch: int, start_step: int) -> Iterator[PairBatch]:
        """Give an epoch's batches from ``start_step`` on."""
        draws = self._data.draws_per_row
        slots = self._slots(epoch)
        step = start_step
        while step < self.steps_per_epoch:
            chunk = step // draws
            end = min((chunk + 1) * draws, self.steps_per_epoch)
            wanted = range(step - chunk * draws, end - chunk * draws)
            numbers = range(self._batch * chunk, self._batch * (chunk + 1))[self._share]
            names = tuple(slots[number].name for number in numbers)
            for pairs in zip(*self._rows(epoch, numbers, slots, wanted), strict=True):
                yield _batch(pairs, names)
            step = end

    def _rows(
        self, epoch: int, numbers: range, slots: list[ClipRow], wanted: range
    ) -> list[list[Pair]]:
        """Give for each slot its wanted draws."""

        def draw(number: int, pictures: ClipPictures) -> list[Pair]:
            return [
                draw_pair(
                    pictures,
                    self._data,
                    self._model,
                    self._rng(epoch, number, one),
                    augment=self.part == "train",
                )
                for one in wanted
            ]

        # Files are read here, one after the other; only decoding and cropping are spread.
        read = ((number, ClipPictures(self._read(slots[number]))) for number in numbers)
        if self._pool is None:
            return [draw(number, pictures) for number, pictures in read]
        futures = [self._pool.submit(draw, number, pictures) for number, pictures in read]
        return [future.result() for future in futures]

    def _read(self, row: ClipRow) -> StoredClip:
        reader = self._readers.setdefault(row.tree, ShardReader(row.tree))
        return reader.read(row.file, row.row)

    def _rng(self, epoch: int, *position: int) -> np.random.Generator:
        part = 0 if self.part == "train" else 1
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

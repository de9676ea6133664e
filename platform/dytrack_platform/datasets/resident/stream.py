"""The stream of pairs that are rendered on the device; it can start at any step."""

import itertools
import weakref
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import torch
from torch import Tensor

from dytrack_model.config import ModelConfig
from dytrack_platform.config.schema import DataConfig
from dytrack_platform.datasets.resident.draws import PairDraws
from dytrack_platform.datasets.resident.load import Resident
from dytrack_platform.datasets.resident.render import View, crops
from dytrack_platform.errors import ConfigurationError

_AHEAD = 8
"""Batches chosen on the host while the device works."""
_PROCESSES = 4


@dataclass(frozen=True, slots=True)
class RenderedBatch:
    """Pairs on the device."""

    template: Tensor
    """(B, 3, T, T) uint8, red first."""
    search: Tensor
    """(B, 3, S, S) uint8, red first."""
    boxes_cxcywh: Tensor
    """(B, 4) float32, in [0, 1] of the search crop."""
    template_boxes_cxcywh: Tensor
    """(B, 4) float32, in [0, 1] of the template crop."""


class ResidentStream:
    """Batches of pairs from pictures in memory.

    Pairs depend on seed, epoch and step alone. All workers choose the whole batch and render
    their own part of it.
    """

    def __init__(
        self,
        data: DataConfig,
        model: ModelConfig,
        resident: Resident,
        *,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch_size % world:
            raise ConfigurationError(
                f"train.batch_size: must be a multiple of {world} workers, got {batch_size}"
            )
        self._key = next(_KEYS)
        _DRAWS[self._key] = PairDraws(data, model, resident.groups, resident.things)
        weakref.finalize(self, _DRAWS.pop, self._key, None)
        self._model, self._resident, self._seed = model, resident, seed
        self._batch, self._pairs = batch_size, data.pairs_per_epoch
        self._part = slice(rank * batch_size // world, (rank + 1) * batch_size // world)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch; a last batch that would be smaller is left out."""
        return max(1, self._pairs // self._batch)

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[RenderedBatch]:
        """Return the epoch's batches from ``start_step`` on; the host chooses some ahead."""
        with self._choosers() as pool:
            waiting: list[Future[tuple[View, View]]] = []
            for step in range(start_step, self.steps_per_epoch):
                while len(waiting) < _AHEAD and step + len(waiting) < self.steps_per_epoch:
                    rng = [self._seed, epoch, step + len(waiting)]
                    waiting.append(pool.submit(_draw, self._key, rng, self._batch))
                yield self.render(*waiting.pop(0).result(), epoch * self.steps_per_epoch + step)
            for future in waiting:
                future.cancel()

    def _choosers(self) -> Executor:
        """Return what chooses pairs ahead.

        A device that trains on ten thousand pairs a second leaves Python no time to choose them
        beside launching its work: processes do it, forked before they touch anything but NumPy.
        """
        if self._resident.pictures.pixels.device.type == "cpu":
            return ThreadPoolExecutor(1, thread_name_prefix="draws")
        return ProcessPoolExecutor(_PROCESSES, mp_context=get_context("fork"))

    def close(self) -> None:
        """Nothing outlives a generator."""

    def render(self, template: View, search: View, number: int) -> RenderedBatch:
        """Render this worker's part of a batch."""
        whole = (template, search)
        views = [_cut(view, self._part) for view in whole]
        resident = self._resident
        device = resident.pictures.pixels.device
        rendered = [
            crops(
                resident.pictures,
                resident.cut_outs,
                view.pictures,
                view.matrices,
                size,
                view.layers,
                view.light,
                seed=2 * number + side,
                noisy_of=_noisy_before(whole[side], self._part),
            )
            for side, (view, size) in enumerate(
                zip(views, (self._model.template_size, self._model.search_size), strict=True)
            )
        ]
        boxes = [
            torch.from_numpy(view.boxes_cxcywh.astype(np.float32)).to(device, non_blocking=True)
            for view in views
        ]
        return RenderedBatch(rendered[0], rendered[1], boxes[1], boxes[0])


_KEYS = itertools.count()
_DRAWS: dict[int, PairDraws] = {}
"""Shared with forked processes, which inherit it, in place of sending it to each."""


def _draw(key: int, seed: list[int], count: int) -> tuple[View, View]:
    return _DRAWS[key].draw(np.random.default_rng(seed), count)


def _noisy_before(view: View, part: slice) -> tuple[int, int]:
    noisy = view.light.grain > 0
    return int(noisy[: part.start].sum()), int(noisy.sum())


def _cut(view: View, part: slice) -> View:
    """Keep a part of the crops, and what lies over them."""
    count = len(view.pictures)
    if part == slice(0, count):
        return view
    first, last = part.start, part.stop
    layers = []
    for layer in view.layers:
        kept = (layer.rows >= first) & (layer.rows < last)
        layers.append(
            type(layer)(
                layer.rows[kept] - first,
                layer.cut_outs[kept],
                layer.matrices[kept],
                layer.gains[kept],
            )
        )
    light = view.light
    fields = {name: getattr(light, name)[part] for name in light.__slots__}
    return View(
        view.pictures[part],
        view.matrices[part],
        tuple(layers),
        type(light)(**fields),
        view.boxes_cxcywh[part],
    )

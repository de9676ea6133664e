"""Run calls of many frames as one: tensors are joined along the batch, and cut again after it."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dytrack_model.checkpoint import SavedTracker
from dytrack_model.policy import OperatingPoint
from dytrack_model.runtime import build, export
from dytrack_model.runtime.engine import Call, Engine, Precision, Tensors
from dytrack_model.runtime.graphs import Graph, chain, part
from dytrack_platform.serving.planning import Table

SIZES = (1, 2, 4, 8)
"""Batches that graphs of fixed shapes are made for; others are filled up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedTracker:
    """A tracker that is ready for batches."""

    engine: Engine
    """For batches of one; trackers of single targets are made with it."""
    points: tuple[OperatingPoint, ...]
    runner: "BatchRunner"
    table: Table
    """Measured costs of batches."""


class BatchRunner:
    """Runs the calls of several frames at once.

    Args:
        engines: By batch size. One engine that takes any batch is given under 1.
    """

    def __init__(self, engines: dict[int, Engine]) -> None:
        first = engines[1]
        self._engines = engines
        self._graphs: dict[str, Graph] = {graph.name: graph for graph in chain(first.config)}
        self._cached = first.config.attention == "template-cached"
        self.most_rows = max(SIZES) if first.any_batch else max(engines)
        """Largest batch."""

    def run(self, calls: Sequence[Call], rows: Sequence[int]) -> None:
        """Run calls of one graph.

        Args:
            calls: At least one; each one's tensors take in what the graph gives.
            rows: Batch of each call's own tensors.
        """
        name, count = calls[0].graph, sum(rows)
        graph, engine = self._graphs[name], self._engines[1]
        if len(calls) == 1 and (count == 1 or engine.any_batch):
            tensors = calls[0].tensors
            engine.run(calls[0])
            if not engine.any_batch:  # another frame's call would overwrite it
                tensors.update({key: engine.keep(tensors[key]) for key in graph.outputs})
            return
        joined: Tensors = {}
        size = count if engine.any_batch else self._size(count)
        whole = self._engines[1 if engine.any_batch else size]
        for key in graph.inputs:
            own = [call.tensors[key] for call in calls]
            # A graph of a fixed shape is filled up with the last frame's rows.
            own += [own[-1]] * (size - count)
            joined[key] = engine.join(own, self._axis(key)) if len(own) > 1 else own[0]
        whole.run(Call(name, joined))
        counts = [*rows, *([size - count] if size > count else [])]
        for key in graph.outputs:
            parts = whole.split(joined[key], counts, self._axis(key))
            for call, own in zip(calls, parts, strict=False):
                call.tensors[key] = own

    def _size(self, count: int) -> int:
        return min(size for size in self._engines if size >= count)

    def _axis(self, name: str) -> int:
        """Where the batch is in a tensor's shape."""
        return 2 if self._cached and part(name) == "template_state" else 0


def open_served(
    saved: SavedTracker | Path,
    runtime: str | None = None,
    precision: Precision = "auto",
    device: str = "cpu",
    *,
    threads: int = 1,
    rounds: int = 3,
) -> ServedTracker:
    """Make a tracker ready for batches and measure what they cost here.

    Args:
        saved: The tracker, or the folder of an export, which serves without batches.
        runtime: torch, compile, onnx or openvino; torch or the export's own where None.
        precision: fp32, bf16, int8, or auto.
        device: Where PyTorch runs.
        threads: Threads of the network.
        rounds: How often each batch is measured.

    Raises:
        CheckpointError: An export is damaged.
        ConfigurationError: Runtime, precision and device do not go together.
        RuntimeMissingError: The runtime is not installed.
    """
    torch.set_num_threads(threads)
    if isinstance(saved, Path):
        engines = {1: export.load(saved, runtime, precision, threads)}
        points = export.describe(saved).points
    else:
        points = saved.points
        engines = {
            1: build(
                saved.network, runtime or "torch", precision, device, threads, ranges=saved.ranges
            )
        }
        if runtime in ("onnx", "openvino"):
            engines |= _fixed(saved, runtime, precision, threads)
    runner = BatchRunner(engines)
    table = measure(engines[1], runner, rounds)
    return ServedTracker(engine=engines[1], points=points, runner=runner, table=table)


def _fixed(
    saved: SavedTracker, runtime: str, precision: Precision, threads: int
) -> dict[int, Engine]:
    """Convert a tracker once for each batch size."""
    engines: dict[int, Engine] = {}
    for size in SIZES[1:]:
        with tempfile.TemporaryDirectory(prefix="dytrack-") as folder:
            export.write_graphs(saved, Path(folder), "onnx", size)
            engines[size] = export.load(folder, runtime, precision, threads)
    return engines


def measure(engine: Engine, runner: BatchRunner, rounds: int = 3) -> Table:
    """Measure what each graph costs by batch, in milliseconds; the median of ``rounds``."""
    sizes = [size for size in SIZES if size <= runner.most_rows]
    config, rng = engine.config, np.random.default_rng(0)
    known: dict[str, dict[int, list[float]]] = {g.name: {} for g in chain(config)}
    for turn in range(rounds + 1):
        for size in sizes:
            frames: list[Tensors] = []
            for _ in range(size):
                template, *searches = [
                    rng.integers(0, 256, (1, side, side, 3), dtype=np.uint8)
                    for side in (config.template_size, config.search_size, config.narrow_size)
                    if side
                ]
                frames.append(_start(engine, template, searches))
            for graph in chain(config):
                calls = [Call(graph.name, tensors) for tensors in frames]
                began = time.perf_counter()
                runner.run(calls, [1] * size)
                engine.wait()
                if turn:
                    took = (time.perf_counter() - began) * 1e3
                    known[graph.name].setdefault(size, []).append(took)
    return Table(
        {name: {n: float(np.median(ms)) for n, ms in by.items()} for name, by in known.items()},
        exits=engine.exit_count,
    )


def _start(engine: Engine, template: Any, searches: list[Any]) -> Tensors:  # noqa: ANN401
    """Return a frame's tensors before its first graph, for every region that it may look at."""
    boxes = np.array([[0.5, 0.5, 0.5, 0.5]])
    work = engine.embedding(template, boxes)
    tensors = next(work).tensors
    for search in searches:
        tensors |= engine.begin(search, {})
    return tensors

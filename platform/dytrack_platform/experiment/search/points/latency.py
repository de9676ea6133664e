"""What a stop at each exit costs: computed arithmetic, counted weights, and measured milliseconds.

Milliseconds are of one machine, runtime and number of threads. The table names them, and a front
whose table is of another machine is measured anew rather than mixed.
"""

import hashlib
import json
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dytrack_model.config import ModelConfig
from dytrack_model.cost import (
    exit_gmacs,
    exit_milliseconds,
    exit_parameters,
    planned_head_gmacs,
)
from dytrack_model.network import DyTrackNetwork
from dytrack_model.runtime import build
from dytrack_model.runtime.engine import Engine, Precision, locate
from dytrack_platform.errors import StorageError
from dytrack_platform.experiment.runs import provenance
from dytrack_platform.experiment.search.points.threshold_front import Costs
from dytrack_platform.storage.atomic import write_atomically

_FRAMES = 20
TABLE = "latency.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Measuring:
    """What runs a network while it is timed."""

    runtime: str = "torch"
    """torch, compile, onnx or openvino."""
    precision: Precision = "auto"
    """fp32, bf16, int8, or auto: the runtime's own choice."""
    threads: int = 1
    """Threads of a graph."""
    device: str = "cpu"
    """Where PyTorch runs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Milliseconds of one network on one machine."""

    machine: str
    """Processor or graphics card, cores and host."""
    model: str
    """Digest of the configuration that was timed; weights do not change a time."""
    runtime: str
    precision: str
    threads: int
    depths: tuple[int, ...]
    """(E,) depths of the exits."""
    milliseconds: tuple[float, ...]
    """(E,) median time of a frame that stops at each, network only."""
    heads: float
    """Time of all heads but the deepest one's: what a frame costs that others learn from."""
    asked: str = ""
    """Precision that was asked for, which may be auto."""


def machine(device: str = "cpu") -> str:
    """Name this machine as far as its times depend on it."""
    if device != "cpu" and torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, {platform.node()}"
    return provenance.machine()


def measured(folder: Path, config: ModelConfig, how: Measuring) -> Latency:
    """Return the table of a network on this machine; it is taken once and kept in ``folder``.

    Args:
        folder: Where ``latency.json`` lies.
        config: The network; random weights are timed.
        how: Runtime, precision, threads and device.

    Raises:
        ConfigurationError: Runtime, precision and device do not go together.
        StorageError: The table cannot be written, or is damaged.
    """
    path, here, model = folder / TABLE, machine(how.device), _digest(config)
    rows = _read(path)
    for row in rows:
        same = (row.machine, row.model, row.runtime, row.threads) == (
            here,
            model,
            how.runtime,
            how.threads,
        )
        # What a runtime does by itself is not what it was told to do before.
        if same and how.precision in (row.asked, row.precision):
            return row
    found = _measure(config, how, here, model)
    write_atomically(path, json.dumps([asdict(row) for row in (*rows, found)], indent=1) + "\n")
    return found


def _read(path: Path) -> list[Latency]:
    try:
        return [latency_from(row) for row in json.loads(path.read_text())]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StorageError(f"{path}: cannot be read: {error}; remove it") from error


def _measure(config: ModelConfig, how: Measuring, here: str, model: str) -> Latency:
    threads = torch.get_num_threads()
    torch.set_num_threads(how.threads)
    try:
        with torch.random.fork_rng(devices=[]):
            network = DyTrackNetwork(config).eval()
        engine = build(network, how.runtime, how.precision, how.device, how.threads)
        times = exit_milliseconds(engine, _FRAMES)
        heads = _heads_ms(engine) if len(config.exits) > 1 else 0.0
    finally:
        torch.set_num_threads(threads)
    return Latency(
        machine=here,
        model=model,
        runtime=how.runtime,
        precision=engine.precision,
        threads=how.threads,
        depths=config.exits,
        # A noisy clock can say that a deeper exit is faster; no route is shorter than one in it.
        milliseconds=tuple(np.maximum.accumulate(times).tolist()),
        heads=heads,
        asked=how.precision,
    )


def _heads_ms(engine: Engine) -> float:
    """Time the heads of all exits but the last on one frame's tensors."""
    config, rng = engine.config, np.random.default_rng(0)
    template, search = (
        rng.integers(0, 256, (1, side, side, 3), dtype=np.uint8)
        for side in (config.template_size, config.search_size)
    )
    state = engine.embed_template(template, np.array([[0.5, 0.5, 0.5, 0.5]]))
    tensors = engine.begin(search, state)
    for index in range(engine.exit_count):
        engine.advance(index, tensors)
    window = torch.ones(config.map_size, config.map_size)
    times = []
    for _ in range(_FRAMES):
        began = time.perf_counter()
        for index in range(engine.exit_count - 1):
            locate(engine, index, tensors, window)
        times.append((time.perf_counter() - began) * 1e3)
    return float(np.median(times))


def costs_of(network: DyTrackNetwork, latency: Latency | None = None) -> Costs:
    """Return what frames cost: GMACs and weights, and milliseconds where they were measured."""
    stop = {
        "gmacs": np.array(exit_gmacs(network)),
        "params": np.array(exit_parameters(network), np.float64),
    }
    learning = {"gmacs": float(sum(planned_head_gmacs(network.config)[:-1]))}
    if latency is not None:
        stop["ms"] = np.array(latency.milliseconds)
        learning["ms"] = latency.heads
    return Costs(stop=stop, learning=learning)


def planned_costs(config: ModelConfig, latency: Latency | None = None) -> Costs:
    """Return :func:`costs_of` a configuration, without making its weights."""
    with torch.device("meta"):
        network = DyTrackNetwork(config)
    return costs_of(network, latency)


def full_depth(costs: Costs) -> dict[str, float]:
    """Return the cost of a stop at the deepest exit by name."""
    return {name: float(values[-1]) for name, values in costs.stop.items()}


def _digest(config: ModelConfig) -> str:
    text = json.dumps(config.to_dict(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def latency_from(row: Mapping[str, Any]) -> Latency:
    """Build a table from its JSON."""
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list | tuple) else value
        for key, value in row.items()
    }
    return Latency(**values)

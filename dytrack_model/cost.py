"""What each exit costs: parameters, multiply-accumulates and measured milliseconds.

Convention: one GMAC is 1e9 multiply-accumulates of linear layers, convolutions *and* both
attention products; norms, activations and additions are not counted (below 1 % for a ViT).
A FLOP count is twice that. Counters in the style of thop leave the attention products out.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import nn

from dytrack_model.config import ModelConfig
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import Thresholds
from dytrack_model.runtime.engine import Engine, infer
from dytrack_model.runtime.torch_engine import TorchEngine


@dataclass(frozen=True, kw_only=True, slots=True)
class ExitCost:
    """Cost of the route that stops at one exit, for one frame."""

    depth: int
    """Blocks run."""
    parameters: int
    """Weights that this route reads."""
    gmacs: float
    """Billions of multiply-accumulates, decisioners of refused exits included."""
    milliseconds: float | None
    """Median time of the network, where it was measured."""
    narrow: bool = False
    """Whether it looks at the narrow search region."""


def exit_gmacs(network: DyTrackNetwork) -> tuple[float, ...]:
    """Return the GMACs of one frame for a stop at each exit.

    With cached attention the template's own cost is left out: it is paid once per target.
    """
    config = network.config
    width, map_size = config.width, config.map_size
    template, search = config.template_map_size**2, map_size**2
    patches = search * width * 3 * config.patch**2
    first = 1 + network.backbone.register_count
    queries = first + search + (0 if network.backbone.cached else template)
    # A reading IoU token has no key.
    keys = first + search + template - (config.iou_token == "read_only")
    blocks = [_block_macs(block, width, queries, keys) for block in network.backbone.blocks]
    costs = []
    passed = 0
    for index, depth in enumerate(config.exits):
        recycle = network.recycling[index - 1].macs(search) if index else 0  # type: ignore[operator]
        summarise = network.score_summaries[index].macs(search) if network.score_summaries else 0  # type: ignore[operator]
        decide = network.decisioners[index].macs()  # type: ignore[operator]
        if network.matching:
            recycle += network.matching[index].macs(search, template)  # type: ignore[operator]
        passed += recycle + summarise + decide
        head = network.heads[index].macs()  # type: ignore[operator]
        costs.append((patches + sum(blocks[:depth]) + passed + head) / 1e9)
    return tuple(costs)


@cache
def planned_gmacs(config: ModelConfig) -> tuple[float, ...]:
    """Return :func:`exit_gmacs` of a configuration, without making the weights."""
    with torch.device("meta"):
        return exit_gmacs(DyTrackNetwork(config))


@cache
def planned_head_gmacs(config: ModelConfig) -> tuple[float, ...]:
    """Return the GMACs of each exit's head alone, without making the weights."""
    with torch.device("meta"):
        heads = DyTrackNetwork(config).heads
    return tuple(head.macs() / 1e9 for head in heads)  # type: ignore[operator]


def planned_extra_gmacs(
    config: ModelConfig, looked: ModelConfig, exit_index: int, heads: int
) -> float:
    """Return what a frame costs beyond a stop at an exit over the whole search region.

    Args:
        config: The network's.
        looked: That of the region that was looked at, the same or :meth:`ModelConfig.narrowed`.
        exit_index: The exit that gave the box.
        heads: Heads that ran besides, from the shallowest on.
    """
    saved = planned_gmacs(looked)[exit_index] - planned_gmacs(config)[exit_index]
    return saved + sum(planned_head_gmacs(looked)[:heads])


def exit_parameters(network: DyTrackNetwork) -> tuple[int, ...]:
    """Return the number of weights that a stop at each exit reads."""
    total = _count(network.backbone) - _count(network.backbone.blocks)
    counts = []
    first = 0
    for index, depth in enumerate(network.config.exits):
        total += sum(_count(block) for block in network.backbone.blocks[first:depth])
        total += _count(network.norms[index]) + _count(network.decisioners[index])
        total += _count(network.recycling[index - 1]) if index else 0
        total += _count(network.score_summaries[index]) if network.score_summaries else 0
        total += _count(network.matching[index]) if network.matching else 0
        counts.append(total + _count(network.heads[index]))
        first = depth
    return tuple(counts)


def exit_costs(
    network: DyTrackNetwork, engine: Engine | None = None, *, frames: int = 0
) -> tuple[ExitCost, ...]:
    """Return the cost of each exit, and after them of each over the narrow region, if there is one.

    Args:
        network: The network.
        engine: The runtime to time it on; PyTorch, where the network is, if None.
        frames: Frames to time at each exit, routes interleaved; 0 measures nothing.
    """
    config, narrow = network.config, network.config.narrow_size > 0
    gmacs = exit_gmacs(network) + (planned_gmacs(config.narrowed()) if narrow else ())
    measured: tuple[float | None, ...] = (None,) * len(gmacs)
    if frames:
        device = next(network.parameters()).device
        engine = engine or TorchEngine(network, device=device)
        measured = exit_milliseconds(engine, frames, narrow=narrow)
    exits = zip(config.exits, exit_parameters(network), strict=True)
    return tuple(
        ExitCost(
            depth=depth,
            parameters=parameters,
            gmacs=gmacs[k],
            milliseconds=measured[k],
            narrow=k >= len(config.exits),
        )
        for k, (depth, parameters) in enumerate([*exits] * (2 if narrow else 1))
    )


def exit_milliseconds(
    engine: Engine, frames: int, warm_up: int = 3, *, narrow: bool = False
) -> tuple[float, ...]:
    """Return the median time of each exit's route, from the search crop to the box.

    Routes take turns, so that a drift of the machine's speed meets all alike. The depth is
    forced, so the random image does not decide which route is timed. The scores of refused
    exits are read, as they are where thresholds decide.

    Args:
        engine: The runtime.
        frames: Frames to time at each exit.
        warm_up: Frames of each that are not counted.
        narrow: Time each exit's route over the narrow search region as well, after the others.
    """
    regions = (False, True) if narrow else (False,)
    routes = [route(engine, index, narrow=n) for n in regions for index in range(engine.exit_count)]
    times: list[list[float]] = [[] for _ in routes]
    for frame in range(frames + warm_up):
        for measured, run in zip(times, routes, strict=True):
            began = time.perf_counter()
            run()
            if frame >= warm_up:
                measured.append((time.perf_counter() - began) * 1e3)
    return tuple(float(np.median(measured)) for measured in times)


def route(engine: Engine, exit_index: int, *, narrow: bool = False) -> Callable[[], None]:
    """Return a call that runs the tracker's own path to one exit on a random search crop."""
    config = engine.config.narrowed() if narrow else engine.config
    rng = np.random.default_rng(0)
    template, search = (
        rng.integers(0, 256, (1, side, side, 3), dtype=np.uint8)
        for side in (config.template_size, config.search_size)
    )
    # No predicted IoU reaches 2; every one reaches 0.
    limits = (2.0,) * exit_index + (0.0,) * (engine.exit_count - 1 - exit_index)
    policy = _Deciding(limits)
    template_state = engine.embed_template(template, np.array([[0.5, 0.5, 0.5, 0.5]]))
    window = torch.ones(config.map_size, config.map_size)

    def run() -> None:
        infer(
            engine, policy, search, template_state, window
        )  # reads the box: the device has finished

    return run


class _Deciding(Thresholds):
    """Thresholds that always have the predicted IoU read, as on a real frame."""

    @property
    def reads_score(self) -> bool:
        """Yes, whatever the thresholds are."""
        return True


def _block_macs(block: nn.Module, width: int, queries: int, keys: int) -> int:
    linear = sum(m.weight.numel() for m in block.modules() if isinstance(m, nn.Linear))
    return queries * linear + 2 * queries * keys * width


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())

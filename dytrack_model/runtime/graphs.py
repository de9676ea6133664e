"""A tracker cut into graphs, and how they chain: the same cut for every runtime.

A branch that depends on the data does not trace, so no graph contains one: the host runs a
stage, reads the IoU that its exit's decisioner predicts, and goes on or runs the exit's head. The
decisioner is the stage's last part: a call of its own would cost ten times what it computes
(docs/decisions/0008). The head, which does cost something, runs only where the tracker stops.

===========  ======================================  ========================================
graph        reads                                   returns
===========  ======================================  ========================================
template     the template crop; once per target      template_state0 (cached: one per stage)
stage0       search, template_state0                 tokens0, features0, predicted_iou0,
                                                     iou_token0 where recycling reads it
stage1 ...   tokens0, what recycling reads of        the same of exit 1
             exit 0 (cached: and template_state1)
head0 ...    features0                               score0, size0, offset0
===========  ======================================  ========================================

Where there is a narrow search crop (:mod:`~dytrack_model.narrow`), all graphs but the template's
are there a second time, for ``narrow_search``; they and what they give begin with ``narrow_``.

Where the configuration reads the target's box, ``target_share`` says how much of each template
patch it covers, (B, Z) float32: to the template graph for token types, to every stage for matching.

Tensors carry names; a graph's inputs are outputs of others, or the crops. The last stage passes
nothing on but its features. Crops are (B, S, S, 3) uint8 RGB, as
:func:`~dytrack_model.crops.crop` cuts them.

Dimensions: B batch, S side of a crop, N tokens, Z template tokens, X search tokens, D width.
"""

import copy
import itertools
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from dytrack_model.config import ModelConfig, require
from dytrack_model.errors import CheckpointError
from dytrack_model.exits.recycling import ExitFeatures
from dytrack_model.narrow import NARROW, narrowed
from dytrack_model.network import DyTrackNetwork, sharing_copy

Kind = Literal["template", "stage", "head"]

PASSED_ON = ("template_state", "tokens", "features", "iou_token")
"""Tensors, without their exit's number, that go from graph to graph; the host reads the others."""
_RECYCLED = {
    "none": (),
    "add": ("features",),
    "concat": ("features",),
    "cascade": ("features", "iou_token"),
}
"""What each recycling schema reads of the exit before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """One graph's place in the chain."""

    kind: Kind
    """What it does."""
    exit_index: int
    """The exit that it belongs to, from 0; the template's is 0."""
    narrow: bool = False
    """Whether it reads the narrow search crop."""
    inputs: tuple[str, ...]
    """Names of the tensors that it reads, in the order of its arguments."""
    outputs: tuple[str, ...]
    """Names of the tensors that it gives, in order."""

    @property
    def name(self) -> str:
        """template, stage0, head0, stage1, ..., narrow_stage0, ..."""
        if self.kind == "template":
            return self.kind
        return f"{NARROW if self.narrow else ''}{self.kind}{self.exit_index}"

    @property
    def whole_name(self) -> str:
        """Name of the graph that computes the same over the whole search crop."""
        return self.name.removeprefix(NARROW)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"name": self.name, "inputs": list(self.inputs), "outputs": list(self.outputs)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Ports:
    """What a graph from a file reads and gives: shapes by name, in their order."""

    reads: dict[str, tuple[int, ...]]
    gives: dict[str, tuple[int, ...]]


def chain(config: ModelConfig) -> tuple[Graph, ...]:
    """Return the graphs of a configuration, in the order in which the deepest route runs them."""
    cached = config.attention == "template-cached"
    last = len(config.exits) - 1
    recycled = _RECYCLED[config.recycling]
    # With joint attention the template enters once; cached keys and values enter every stage.
    states = tuple(f"template_state{k}" for k in range(last + 1 if cached else 1))
    crop = ("template", "target_share") if config.token_type == "target" else ("template",)
    matched = ("target_share",) if config.template_matching else ()
    graphs = [Graph(kind="template", exit_index=0, inputs=crop, outputs=states)]
    for narrow in (False, True) if config.narrow_size else (False,):
        own = NARROW if narrow else ""
        for k in range(last + 1):
            before = (f"{own}search",) if k == 0 else (f"{own}tokens{k - 1}",)
            state = (f"template_state{k}",) if cached or k == 0 else ()
            passed = tuple(f"{own}{part}{k - 1}" for part in recycled) if k else ()
            features, predicted = f"{own}features{k}", f"{own}predicted_iou{k}"
            tokens = (f"{own}tokens{k}",) if k < last else ()
            token = (f"{own}iou_token{k}",) if k < last and "iou_token" in recycled else ()
            inputs = (*before, *state, *passed, *matched)
            given = (*tokens, features, *token, predicted)
            maps = (f"{own}score{k}", f"{own}size{k}", f"{own}offset{k}")
            graphs += [
                Graph(kind="stage", exit_index=k, inputs=inputs, outputs=given, narrow=narrow),
                Graph(kind="head", exit_index=k, inputs=(features,), outputs=maps, narrow=narrow),
            ]
    return tuple(graphs)


def require_links(
    config: ModelConfig, files: Mapping[str, Path], ports: Mapping[str, Ports]
) -> None:
    """Refuse graphs from files that do not read what the ones before them give.

    Args:
        config: The network's.
        files: The file of each graph by name.
        ports: What each graph reads and gives.

    Raises:
        CheckpointError: A file holds another graph, or one of another tracker.
    """
    images = {"template": config.template_size, "search": config.search_size}
    if config.narrow_size:
        images[f"{NARROW}search"] = config.narrow_size
    batch = next(iter(ports["template"].reads.values()), ())[:1]
    known = {name: (*batch, side, side, 3) for name, side in images.items()}
    for graph in chain(config):
        reads, gives = ports[graph.name].reads, ports[graph.name].gives
        named = (tuple(reads), tuple(gives)) == (graph.inputs, graph.outputs)
        odd = [
            name
            for name, shape in (reads | gives).items()
            if known.setdefault(name, shape) != shape
        ]
        if named and not odd:
            continue
        expected, got = ", ".join((*graph.inputs, *graph.outputs)), ", ".join([*reads, *gives])
        if named:
            name = odd[0]
            expected, got = f"{name} of {known[name]}", f"{(reads | gives)[name]}"
        raise CheckpointError(
            f"{files[graph.name]}: not graph {graph.name} of this tracker (expected {expected}, "
            f"got {got}); export again"
        )


def place(name: str) -> tuple[Kind, int, bool]:
    """Return a graph's kind, exit and whether it is of the narrow search crop, by its name."""
    kind, number = part(name), name.lstrip(string.ascii_letters + "_")
    return cast("Kind", kind), int(number or 0), name.startswith(NARROW)


def part(name: str) -> str:
    """Return a tensor's name without exit and region: ``tokens`` of ``narrow_tokens1``."""
    return name.removeprefix(NARROW).rstrip("0123456789")


def evaluation_copy(network: DyTrackNetwork, device: str | torch.device) -> DyTrackNetwork:
    """Return a network in evaluation mode on a device; the caller's stays as and where it is.

    On the caller's own device the copy shares the weights, so it costs no memory and follows
    what a training does to them; on another device the weights are copied once.
    """
    here = next(network.parameters()).device == torch.empty(0, device=device).device
    if here:
        return sharing_copy(network).eval()
    return copy.deepcopy(network).to(device).eval()


def modules(network: DyTrackNetwork) -> Iterator[tuple[Graph, nn.Module]]:
    """Yield the graphs of :func:`chain`, each with a module that shares the network's weights.

    A module takes its graph's inputs in order and returns a tuple of its outputs.

    Args:
        network: In evaluation mode, as :func:`evaluation_copy` returns it.
    """
    require(not network.training, "network: a graph needs evaluation mode; see evaluation_copy")
    kinds = {"template": _Template, "stage": _Stage, "head": _Head}
    narrow = narrowed(network) if network.config.narrow_size else network
    for graph in chain(network.config):
        yield graph, kinds[graph.kind](narrow if graph.narrow else network, graph).eval()


def examples(network: DyTrackNetwork, batch: int = 1) -> dict[str, Tensor]:
    """Return a tensor of the right shape and type for every name in the chain.

    Args:
        network: In evaluation mode.
        batch: B of every tensor.
    """
    config = network.config
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(0)

    def crop(side: int) -> Tensor:
        shape = (batch, side, side, 3)
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(device)

    tensors = {"template": crop(config.template_size), "search": crop(config.search_size)}
    if config.narrow_size:
        tensors[f"{NARROW}search"] = crop(config.narrow_size)
    if config.reads_target_box:
        share = torch.rand(batch, config.template_map_size**2, generator=generator)
        tensors["target_share"] = share.to(device)
    with torch.inference_mode():
        for graph, module in modules(network):
            given = module(*(tensors[name] for name in graph.inputs))
            tensors |= zip(graph.outputs, given, strict=True)
    # Leaving inference mode needs copies: a tracer refuses inference tensors.
    return {name: tensor.clone() for name, tensor in tensors.items()}


class _Part(nn.Module):
    """A graph of the chain as a module."""

    def __init__(self, network: DyTrackNetwork, graph: Graph) -> None:
        super().__init__()
        self.network, self.index = network, graph.exit_index
        self.inputs = [part(name) for name in graph.inputs]
        self.outputs = [part(name) for name in graph.outputs]


class _Template(_Part):
    """(B, T, T, 3) uint8 to the template state, one tensor for each stage that reads it."""

    def forward(self, template: Tensor, target_share: Tensor | None = None) -> tuple[Tensor, ...]:
        """Embed (B, T, T, 3); with cached attention cut the keys and values by stage.

        ``target_share`` is (B, Z) where the network reads it.
        """
        state = self.network.embed_template(template.permute(0, 3, 1, 2), target_share)
        if not self.network.backbone.cached:
            return (state,)
        bounds = itertools.pairwise((0, *self.network.config.exits))
        return tuple(state[first:last] for first, last in bounds)


class _Stage(_Part):
    """The blocks up to one exit, its view of the tokens, recycling, and the decisioner."""

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return what the chain says of this stage's tensors.

        These are tokens (B, N, D), features (B, X, D), IoU token (B, D), predicted IoU (B,).
        """
        network, k = self.network, self.index
        given = dict(zip(self.inputs, tensors, strict=True))
        if k == 0:
            search = given["search"].permute(0, 3, 1, 2)
            tokens = network.embed_search(search, given["template_state"])
        else:
            tokens = given["tokens"]
        first, last = (0, *network.config.exits)[k : k + 2]
        tokens = network.backbone.run_blocks(tokens, given.get("template_state"), first, last)
        own = network.read(k, tokens, given.get("target_share"))
        # What the schema does not read is not passed on; the exit's own stands in its place.
        previous = ExitFeatures(
            given.get("features", own.features), given.get("iou_token", own.iou_token)
        )
        features = network.recycle(k, own, previous if k else None)
        # Blocks may run under autocast; rounded to bf16, predicted IoUs would tie.
        with torch.autocast(tokens.device.type, enabled=False):
            score = network.decide(k, features._replace(iou_token=features.iou_token.float()))
        known = {"tokens": tokens, **features._asdict(), "predicted_iou": score}
        return tuple(known[name] for name in self.outputs)


class _Head(_Part):
    """(B, X, D) features to the head's maps."""

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """Return maps (B, H, W) and (B, 2, H, W) from (B, X, D)."""
        maps = self.network.heads[self.index](features)
        return (maps.score, maps.size, maps.offset)

"""The one interface over runtimes: an engine runs a tracker's graphs; :func:`infer` decides.

An engine keeps nothing of a target or a frame: tensors travel in a dictionary by the names of
:mod:`~dytrack_model.runtime.graphs`, in whatever type the runtime likes best. One engine serves
one thread at a time.

What has to be computed for a frame is written once, as a generator that yields a :class:`Call` for
each graph and goes on when it was run. :func:`finish` runs the calls one by one; a server runs
those of many frames that wait for the same graph as one batch.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dytrack_model.ambiguity import CLEAR, Ambiguity, distraction, motion
from dytrack_model.backbone import target_share
from dytrack_model.config import ModelConfig, require
from dytrack_model.correction import BoxCorrection
from dytrack_model.exits.heads import HeadMaps, read_boxes
from dytrack_model.narrow import NARROW
from dytrack_model.policy import Policy
from dytrack_model.runtime.graphs import Graph, chain

Precision = Literal["auto", "fp32", "bf16", "int8"]
Native = Any  # a tensor of the runtime: torch, numpy or OpenVINO
Tensors = dict[str, Native]
Result = TypeVar("Result")


class Call(NamedTuple):
    """One graph to run on a frame's tensors, to which it adds what it gives."""

    graph: str
    """Name of the graph."""
    tensors: Tensors
    """The frame's; all of the same batch."""


Work = Generator[Call, None, Result]
"""Calls, and what comes of them in the end."""


def finish(engine: "Engine", work: Work[Result]) -> Result:
    """Run every call of a work on an engine, one after the other, and return what comes of it."""
    while True:
        try:
            call = next(work)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        engine.run(call)


class Engine:
    """Runs the graphs of one tracker on one runtime.

    Attributes:
        config: The network's configuration.
        runtime: Name of the runtime: torch, compile, onnx or openvino.
        precision: Arithmetic that really runs: fp32, bf16 or int8.
        any_batch: Whether graphs take batches of any size without being made anew.
    """

    any_batch = False

    def __init__(
        self,
        config: ModelConfig,
        runtime: str,
        precision: str,
        graphs: Mapping[str, Callable[..., tuple[Native, ...]]],
    ) -> None:
        self.config = config
        self.runtime = runtime
        self.precision = precision
        self._chain = {graph.name: graph for graph in chain(config)}
        self._graphs = dict(graphs)

    @property
    def exit_count(self) -> int:
        """Number of exits, E."""
        return len(self.config.exits)

    def embed_template(
        self, template: NDArray[np.uint8], boxes_cxcywh: NDArray[np.float64] | None = None
    ) -> Tensors:
        """Return the template state of a target.

        Args:
            template: Its crops (B, T, T, 3), uint8 RGB.
            boxes_cxcywh: (B, 4) the target in [0, 1] of its crop; needed where the configuration
                reads the target's box.
        """
        return finish(self, self.embedding(template, boxes_cxcywh))

    def embedding(
        self, template: NDArray[np.uint8], boxes_cxcywh: NDArray[np.float64] | None = None
    ) -> Work[Tensors]:
        """As :meth:`embed_template`, call by call."""
        tensors: Tensors = {"template": self.adopt(template)}
        kept = [*self._chain["template"].outputs]
        if self.config.reads_target_box:
            require(boxes_cxcywh is not None, "boxes_cxcywh: this network reads the target's box")
            boxes = torch.from_numpy(np.asarray(boxes_cxcywh, dtype=np.float32))
            share = target_share(boxes, self.config.template_map_size)
            tensors["target_share"] = self.adopt(share.numpy())
            kept += ["target_share"] if self.config.template_matching else []
        yield Call("template", tensors)
        return {name: self.keep(tensors[name]) for name in kept}

    def begin(self, search: NDArray[np.uint8], template_state: Mapping[str, Native]) -> Tensors:
        """Start a frame from search crops, whole or narrow by their side, and a template state.

        Args:
            search: (B, S, S, 3) uint8 RGB.
            template_state: What :meth:`embed_template` returned.
        """
        own = NARROW if search.shape[1] == self.config.narrow_size else ""
        return {**template_state, f"{own}search": self.adopt(search)}

    def run(self, call: Call) -> None:
        """Run one graph on (B, ...) tensors, which take in what it gives."""
        self._run(call.graph, call.tensors)

    def advance(self, exit_index: int, tensors: Tensors) -> None:
        """Run (B, N, D) tokens up to an exit; this frame must have reached the one before it."""
        self.run(stage(exit_index, tensors))

    def decide(self, exit_index: int, tensors: Tensors) -> NDArray[np.float32]:
        """Read the IoU (B,) predicted for an exit that this frame reached; no head runs.

        On a GPU this waits until the stage is done.
        """
        return self.to_torch(tensors[f"{region(tensors)}predicted_iou{exit_index}"]).numpy()

    def locate(self, exit_index: int, tensors: Tensors) -> HeadMaps:
        """Run an exit's head; the maps, (B, H, W) and (B, 2, H, W), lie in the CPU's memory."""
        self.run(head(exit_index, tensors))
        return self.maps(exit_index, tensors)

    def maps(self, exit_index: int, tensors: Tensors) -> HeadMaps:
        """Read the maps of a head that was run, (B, H, W) and (B, 2, H, W), in the CPU's memory."""
        own = region(tensors)
        read = (tensors[f"{own}{name}{exit_index}"] for name in ("score", "size", "offset"))
        return HeadMaps(*(self.to_torch(tensor) for tensor in read))

    def wait(self) -> None:
        """Return when the device has done all that it was asked for; on a CPU it always has."""

    def adopt(self, array: NDArray[np.uint8] | NDArray[np.float32]) -> Native:
        """Turn what the host made into the runtime's tensor."""
        raise NotImplementedError

    def keep(self, tensor: Native) -> Native:
        """Return a tensor that later calls do not overwrite."""
        raise NotImplementedError

    def join(self, tensors: Sequence[Native], axis: int) -> Native:
        """Return tensors of one shape, (..., B, ...), as one, joined along the batch's axis."""
        raise NotImplementedError

    def split(self, tensor: Native, counts: Sequence[int], axis: int) -> list[Native]:
        """Undo :meth:`join`; later calls do not overwrite the parts (..., B, ...)."""
        raise NotImplementedError

    def to_torch(self, tensor: Native) -> Tensor:
        """Return a float32 tensor in the CPU's memory, valid until the graph runs again."""
        raise NotImplementedError

    def _run(self, name: str, tensors: Tensors) -> tuple[Native, ...]:
        graph: Graph = self._chain[name]
        given = self._graphs[name](*[tensors[tensor] for tensor in graph.inputs])
        tensors.update(zip(graph.outputs, given, strict=True))
        return given


def region(tensors: Tensors) -> str:
    """Return how the names of a frame's tensors and graphs begin, by its crops (B, S, S, 3)."""
    return NARROW if f"{NARROW}search" in tensors else ""


def stage(exit_index: int, tensors: Tensors) -> Call:
    """Return the call that runs a frame's (B, N, D) tokens up to an exit."""
    return Call(f"{region(tensors)}stage{exit_index}", tensors)


def head(exit_index: int, tensors: Tensors) -> Call:
    """Return the call that runs an exit's head on a frame's (B, X, D) features."""
    return Call(f"{region(tensors)}head{exit_index}", tensors)


class Inference(NamedTuple):
    """What came of one search crop."""

    box_cxcywh: list[float]
    """(4,) in [0, 1] of the crop."""
    predicted_iou: float
    """Of that box."""
    exit_index: int
    """The exit that gave it."""
    tensors: Tensors
    """The frame's tensors: heads of the exits passed can still run on them."""
    overruled: bool
    """Whether the policy wanted to leave where it was not let."""
    passed: list[list[float]]
    """(exit_index, 4) boxes of the exits before, where the policy had them found."""


def infer(
    engine: Engine,
    policy: Policy,
    search: NDArray[np.uint8],
    template_state: Mapping[str, Native],
    window: Tensor | None = None,
    *,
    deep: bool = False,
    correction: BoxCorrection | None = None,
) -> Inference:
    """Run one search crop (1, S, S, 3) through the exits until the policy says stop.

    Args:
        engine: The runtime.
        policy: When to stop.
        search: The crop, whole or narrow, uint8 RGB, cut around the last frame's box.
        template_state: What :meth:`Engine.embed_template` returned.
        window: (H, W) weights of the score map; see :func:`~dytrack_model.exits.heads.read_boxes`.
        deep: Go to full depth whatever the policy answers; it is asked all the same.
        correction: Of the boxes of which a policy is told how they moved; none is changed.
    """
    work = inferring(
        engine, policy, search, template_state, window, deep=deep, correction=correction
    )
    return finish(engine, work)


def inferring(
    engine: Engine,
    policy: Policy,
    search: NDArray[np.uint8],
    template_state: Mapping[str, Native],
    window: Tensor | None = None,
    *,
    deep: bool = False,
    correction: BoxCorrection | None = None,
) -> Work[Inference]:
    """As :func:`infer`, call by call; ``search`` is (1, S, S, 3), ``window`` (H, W)."""
    policy.begin_frame()
    overruled = False
    passed: list[list[float]] = []
    tensors = engine.begin(search, template_state)
    last = engine.exit_count - 1
    for exit_index in range(engine.exit_count):
        yield stage(exit_index, tensors)
        if exit_index == last:
            break
        # A GPU would have to finish the stage first, so only policies that look are told.
        score = float(engine.decide(exit_index, tensors)[0]) if policy.reads_score else 0.0
        ambiguity = CLEAR
        if policy.reads_head:
            passed += yield from locating(engine, exit_index, tensors, window)
            ambiguity = _ambiguity(engine, exit_index, tensors, passed[-1], window, correction)
        if policy.leave(exit_index, score, ambiguity):
            if not deep:
                break
            overruled = True
    if len(passed) > exit_index:
        box_cxcywh = passed.pop()
    else:
        (box_cxcywh,) = yield from locating(engine, exit_index, tensors, window)
    predicted_iou = float(engine.decide(exit_index, tensors)[0])
    return Inference(box_cxcywh, predicted_iou, exit_index, tensors, overruled, passed)


def _ambiguity(
    engine: Engine,
    exit_index: int,
    tensors: Tensors,
    box_cxcywh: list[float],
    window: Tensor | None,
    correction: BoxCorrection | None,
) -> Ambiguity:
    """Judge an exit's answer, whose head was run just before."""
    score = engine.maps(exit_index, tensors).score
    weighted = (score if window is None else score * window).numpy()
    (distractor,) = distraction(weighted, [box_cxcywh]).tolist()
    box = box_cxcywh if correction is None else correction.centred(exit_index, box_cxcywh)
    config = engine.config
    factor = config.narrow_factor if region(tensors) else config.search_factor
    return Ambiguity(distractor, *motion(box, factor).tolist())


def locate(
    engine: Engine, exit_index: int, tensors: Tensors, window: Tensor | None = None
) -> list[float]:
    """Run an exit's head and return its box ``cx, cy, w, h`` in [0, 1] of the crop.

    Args:
        engine: The runtime.
        exit_index: An exit that this frame reached.
        tensors: The frame's tensors.
        window: (H, W) weights of the score map.
    """
    return locate_all(engine, exit_index, tensors, window)[0]


def locate_all(
    engine: Engine, exit_index: int, tensors: Tensors, window: Tensor | None = None
) -> list[list[float]]:
    """As :func:`locate`, for a batch: (B, 4), one box for each crop."""
    return finish(engine, locating(engine, exit_index, tensors, window))


def locating(
    engine: Engine, exit_index: int, tensors: Tensors, window: Tensor | None = None
) -> Work[list[list[float]]]:
    """As :func:`locate_all`, (B, 4), call by call; ``window`` is (H, W)."""
    yield head(exit_index, tensors)
    with torch.inference_mode():
        return read_boxes(engine.maps(exit_index, tensors), window).tolist()

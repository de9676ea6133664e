"""Static int8: ranges of activations, found once on pictures and kept with the tracker.

A linear layer multiplies in int8 when both its sides are: weights are rounded once, with a scale
for each output. Activations can be rounded with scales found while running, or with one range fixed
beforehand, which costs nothing then. The range of a layer's input goes from the smallest to the
largest value that any picture gave. Where single values are far larger than all others, 256 steps
over that range say little about the others: such a layer is left as it is, and its range is empty.

A layer is known by its graph and its place in it, in the order in which the graph computes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dytrack_model.config import ModelConfig
from dytrack_model.crops import box_to_crop, centre, crop, crop_side
from dytrack_model.errors import CheckpointError, ConfigurationError, ImageError
from dytrack_model.images import IMAGE_SUFFIXES, RGB, VideoReader
from dytrack_model.runtime.graphs import Graph

PICTURES = 48
MOST_NOISE = 0.04
"""Of rounding an input, as a share of the input itself (both root mean squares): our choice. With
all layers rounded one box in six of the reference tracker moved by more than 2 pixels."""
SMALLEST = 64
"""Outputs from which a layer is rounded: a decisioner's few cost nothing, and thresholds look at
them."""
UNPINNED = {"ENABLE_CPU_PINNING": False}
"""OpenVINO's setting: pinned, the threads of every process would share the same first cores."""
Pair = tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.uint8]]
"""Template crop (1, T, T, 3), the target in [0, 1] of it (1, 4), and search crop (1, S, S, 3)."""


def layers(model: Any) -> list[Any]:  # noqa: ANN401  (OpenVINO has no types)
    """Return the linear layers of a graph that are rounded, in the order of computation."""
    found = []
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul":
            continue
        weights = node.input_value(1).get_node()
        if weights.get_type_name() != "Constant" or len(weights.get_output_shape(0)) != 2:
            continue
        outputs = weights.get_output_shape(0)[0 if node.get_attributes()["transpose_b"] else 1]
        if outputs >= SMALLEST:
            found.append(node)
    return found


def observe(
    core: Any,  # noqa: ANN401  (OpenVINO has no types)
    chain: tuple[Graph, ...],
    files: Mapping[str, Path],
    pairs: Iterable[Pair],
    target_share: Any,  # noqa: ANN401  (a function of (1, 4) boxes, or None)
) -> dict[str, list[tuple[float, float]]]:
    """Run pictures through the graphs in fp32 and note what every layer is given.

    Args:
        core: OpenVINO's core.
        chain: The graphs.
        files: Each one's file.
        pairs: Crops.
        target_share: Gives (1, Z) for the target's box, for networks that read it.

    Raises:
        ConfigurationError: There is no picture.
    """
    compiled, places = {}, {}
    for graph in chain:
        model = core.read_model(files[graph.name])
        inputs = [node.input_value(0) for node in layers(model)]
        # Two layers may read one tensor, and what a graph gives anyway is not given twice.
        names = [(port.get_node().get_friendly_name(), port.get_index()) for port in inputs]
        known: dict[tuple[str, int], int] = {}
        for port, name in zip(inputs, names, strict=True):
            if name not in known:
                before = len(model.outputs)
                model.add_outputs([port])
                known[name] = before if len(model.outputs) > before else _given(model, port)
        places[graph.name] = [known[name] for name in names]
        settings = {"INFERENCE_PRECISION_HINT": "f32", **UNPINNED}
        compiled[graph.name] = core.compile_model(model, "CPU", settings)
    seen: dict[str, list[list[tuple[float, float, float]]]] = {graph.name: [] for graph in chain}
    for template, box, search in pairs:
        tensors: dict[str, Any] = {"template": template, "search": search}
        if target_share is not None:
            tensors["target_share"] = target_share(box)
        for graph in chain:
            given = compiled[graph.name]([tensors[name] for name in graph.inputs])
            tensors |= {name: np.array(given[k]) for k, name in enumerate(graph.outputs)}
            read = [given[place] for place in places[graph.name]]
            seen[graph.name].append([(a.min(), a.max(), np.square(a).mean()) for a in read])
    if not any(seen.values()):
        raise ConfigurationError("calibrate: there is no picture to find ranges with")
    return {
        name: [_range(np.array(layer)) for layer in zip(*rows, strict=True)]
        for name, rows in seen.items()
    }


def _range(seen: NDArray[np.float64]) -> tuple[float, float]:
    """Choose a layer's range.

    Args:
        seen: (P, 3) smallest value, largest value and mean square of its input on each picture.
    """
    low, high = min(0.0, float(seen[:, 0].min())), max(1e-6, float(seen[:, 1].max()))
    noise = (high - low) / 255 / np.sqrt(12)  # of values that lie anywhere within a step
    return (low, high) if noise <= MOST_NOISE * np.sqrt(seen[:, 2].mean()) else (0.0, 0.0)


def _given(model: Any, port: Any) -> int:  # noqa: ANN401  (OpenVINO has no types)
    """Return the place of a tensor among what a graph gives already."""
    for place, output in enumerate(model.outputs):
        if output.get_node().input_value(0) == port:
            return place
    raise ConfigurationError("calibrate: a layer's input cannot be looked at")


def fix(model: Any, ranges: Sequence[tuple[float, float]], where: str) -> None:  # noqa: ANN401  (no types)
    """Round every layer's input by its range, if it has one; weights are rounded apart.

    Raises:
        CheckpointError: The ranges are of another graph.
    """
    from openvino import opset13 as ops

    found = layers(model)
    if len(found) != len(ranges):
        raise CheckpointError(
            f"{where}: has {len(found)} layers to round and {len(ranges)} ranges; find them again: "
            "dytrack export --precision int8 --calibrate"
        )
    for node, (low, high) in zip(found, ranges, strict=True):
        if low == high:
            continue
        bounds = [ops.constant(np.array(v, np.float32)) for v in (min(low, 0.0), max(high, 1e-6))]
        rounded = ops.fake_quantize(node.input_value(0), *bounds, *bounds, 256)
        node.input(0).replace_source_output(rounded.output(0))


def pairs_of(folder: Path, config: ModelConfig, count: int = PICTURES) -> Iterator[Pair]:
    """Cut template and search crops out of whatever pictures a folder holds.

    Videos and folders of images with a ``groundtruth.txt`` beside them give their own boxes; of
    other pictures, boxes of several sizes are taken, for activations depend little on what is
    inside.

    Args:
        folder: Searched with all that is below it.
        config: The network's configuration.
        count: Most pairs; they are spread over the sources.

    Raises:
        ConfigurationError: The folder holds no picture.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"--calibrate {folder}: no such folder")
    sources = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _VIDEOS)
    pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    step = max(1, len(pictures) // count)
    sources += pictures[::step]
    if not sources:
        raise ConfigurationError(f"--calibrate {folder}: holds no picture and no video")
    rng = np.random.default_rng(0)
    taken = 0
    each = max(1, -(-count // len(sources)))
    for source in sources:
        for first, box, later, moved in _frames(source, each, rng):
            if taken >= count:
                return
            taken += 1
            yield _pair(first, box, later, moved, config)


_VIDEOS = (".mp4", ".mpg", ".avi", ".webm", ".mkv", ".mov")


def _frames(
    source: Path, each: int, rng: np.random.Generator
) -> Iterator[tuple[RGB, NDArray[np.float64], RGB, NDArray[np.float64]]]:
    """Yield pairs of frames with boxes."""
    if source.suffix.lower() in IMAGE_SUFFIXES:
        try:
            image = RGB.open(source)
        except ImageError:
            return
        for _ in range(each):
            box = _some_box(image, rng)
            yield image, box, image, box
        return
    frames = list(VideoReader(source).frames())
    truth = source.with_name("groundtruth.txt")
    boxes = np.full((len(frames), 4), np.nan)
    if truth.is_file():
        rows = [line.replace("\t", ",").split(",") for line in truth.read_text().splitlines()]
        for index, row in enumerate(rows[: len(frames)]):
            if len(row) == 4:
                boxes[index] = [float(value) for value in row]
    for index in np.linspace(0, len(frames) - 1, each).astype(int):
        usable = np.isfinite(boxes[[0, index]]).all() and (boxes[[0, index], 2:] > 1).all()
        if usable:
            yield frames[0], boxes[0], frames[index], boxes[index]
        else:
            box = _some_box(frames[index], rng)
            yield frames[index], box, frames[index], box


def _some_box(image: RGB, rng: np.random.Generator) -> NDArray[np.float64]:
    width, height = image.size
    w, h = rng.uniform(0.1, 0.4) * width, rng.uniform(0.1, 0.4) * height
    return np.array([rng.uniform(0, width - w), rng.uniform(0, height - h), w, h])


def _pair(
    first: RGB,
    box: NDArray[np.float64],
    later: RGB,
    moved: NDArray[np.float64],
    config: ModelConfig,
) -> Pair:
    side = crop_side(box, config.template_factor)
    template = crop(first.pixels, centre(box), side, config.template_size)
    inside = box_to_crop(box, centre(box), side)
    side = max(1.0, crop_side(moved, config.search_factor))
    search = crop(later.pixels, centre(moved), side, config.search_size)
    return template[None], inside[None], search[None]

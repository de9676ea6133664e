"""Export a tracker: one file for each graph, and ``stages.json`` that says how they chain.

A folder is written under another name and checked against PyTorch before it takes its own, so an
export that exists has been run and agrees.
"""

import json
import math
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dytrack_model import checkpoint
from dytrack_model.backbone import target_share
from dytrack_model.checkpoint import SavedTracker
from dytrack_model.config import ModelConfig, require
from dytrack_model.errors import (
    CheckpointError,
    ConfigurationError,
    DyTrackError,
    ExportError,
)
from dytrack_model.folders import require_own, write_folder
from dytrack_model.policy import OperatingPoint
from dytrack_model.runtime import onnx_engine, openvino_engine, quantisation
from dytrack_model.runtime.engine import Engine, Precision
from dytrack_model.runtime.graphs import chain, evaluation_copy, examples, modules
from dytrack_model.runtime.torch_engine import TorchEngine

FORMAT = 3
DESCRIPTION = "stages.json"
Kind = Literal["onnx", "openvino"]
KINDS: tuple[Kind, ...] = ("onnx", "openvino")
_WRITERS = {
    "onnx": (onnx_engine.write, onnx_engine.SUFFIX),
    "openvino": (openvino_engine.write, openvino_engine.SUFFIX),
}
_TOLERANCE = 1e-3
"""Largest difference of scores and boxes, both in [0, 1], that an export may have in fp32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """What an export holds."""

    kind: Kind
    config: ModelConfig
    points: tuple[OperatingPoint, ...]
    """Operating points, as in the checkpoint."""
    files: dict[str, Path]
    """The file of each graph, by the graph's name."""
    batch: int
    """Targets in one call; the graphs' shapes are fixed to it."""
    ranges: dict[str, list[tuple[float, float]]]
    """Of activations, for static int8; empty where they were not found."""


def export(saved: SavedTracker, folder: str | Path, kind: Kind, batch: int = 1) -> float:
    """Write a tracker's graphs, and run them against PyTorch.

    Args:
        saved: The tracker.
        folder: Where to: a new or empty folder, or that of an earlier export, which is replaced.
        kind: onnx or openvino.
        batch: Targets in one call; shapes are fixed to it, which is what makes them fast.

    Returns:
        The largest difference of scores and boxes to PyTorch, both in [0, 1].

    Raises:
        ConfigurationError: There is no such kind, the batch is not positive, or the folder holds
            other things.
        RuntimeMissingError: The kind's packages are not installed.
        ExportError: The graphs disagree with PyTorch; nothing is left behind.
    """
    require(kind in KINDS, f"runtime: must be one of {', '.join(KINDS)}, got {kind!r}")
    require(batch >= 1, f"batch: must be at least 1, got {batch}")
    folder = Path(folder)
    require_own(folder, _written(folder), "the export")
    difference = math.inf

    def write(beside: Path) -> None:
        nonlocal difference
        write_graphs(saved, beside, kind, batch)
        engine = load(beside, precision="fp32")
        difference = largest_difference(engine, TorchEngine(saved.network), batch)
        if not difference <= _TOLERANCE:
            raise ExportError(
                f"{folder}: the exported graphs differ from PyTorch by {difference:.2g} where "
                f"{_TOLERANCE:g} is allowed; nothing was written"
            )
        del engine  # lets go of the files

    before = _written(folder)
    write_folder(folder, write)
    # Graphs of an earlier export that had more stages, or was of another kind.
    for name in before - _written(folder):
        (folder / name).unlink(missing_ok=True)
    return difference


def _written(folder: Path) -> set[str]:
    """Return the names of an earlier export's files in a folder."""
    try:
        described = json.loads((folder / DESCRIPTION).read_text())
        files = {str(graph["file"]) for graph in described["graphs"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    # OpenVINO keeps weights beside a graph.
    weights = {Path(file).with_suffix(".bin").name for file in files if file.endswith(".xml")}
    return {DESCRIPTION, *(name for name in files | weights if "/" not in name)}


def write_graphs(saved: SavedTracker, folder: Path, kind: Kind, batch: int = 1) -> None:
    """Write the graphs and their description into an existing folder, unchecked."""
    network = evaluation_copy(saved.network, "cpu")
    write, suffix = _WRITERS[kind]
    tensors = examples(network, batch)
    types = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}
    described = []
    with network.backbone.spelled_out():
        for graph, module in modules(network):
            file = graph.name + suffix
            write(module, graph, tensors, folder / file)
            names = (*graph.inputs, *graph.outputs)
            described.append(
                {
                    **graph.to_dict(),
                    "file": file,
                    "shapes": {name: list(tensors[name].shape) for name in names},
                    "types": {name: types[name] for name in names},
                }
            )
    description = {
        "format": FORMAT,
        "kind": kind,
        "batch": batch,
        "model": network.config.to_dict(),
        "points": [point.to_dict() for point in saved.points],
        "notes": dict(saved.notes),
        "ranges": {name: [list(row) for row in rows] for name, rows in saved.ranges.items()},
        "graphs": described,
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")


def load(
    folder: str | Path,
    runtime: str | None = None,
    precision: Precision = "auto",
    threads: int = 0,
) -> Engine:
    """Open an exported tracker.

    Args:
        folder: What :func:`export` wrote.
        runtime: onnx or openvino; the export's own kind where None. OpenVINO reads both.
        precision: fp32, bf16, int8 (openvino), or auto for the runtime's choice.
        threads: Threads of each graph; 0 lets the runtime choose.

    Raises:
        CheckpointError: The folder is no export, damaged, or of a newer format.
        ConfigurationError: The runtime cannot read it, or the precision is not to be had.
        RuntimeMissingError: The runtime is not installed.
    """
    description = describe(folder)
    kind, config, files = description.kind, description.config, description.files
    runtime = runtime or kind
    graphs = chain(config)
    missing = [g.name for g in graphs if not files.get(g.name, Path()).is_file()]
    if missing:
        raise CheckpointError(f"{folder}: no file of graph {missing[0]}; export again")
    require(
        runtime == "openvino" or runtime == kind == "onnx",
        f"runtime: an export to {kind} runs on {'onnx or ' if kind == 'onnx' else ''}openvino, "
        f"got {runtime!r}",
    )
    try:
        if runtime == "onnx":
            return onnx_engine.OnnxEngine(config, graphs, files, threads, precision)
        return openvino_engine.OpenVinoEngine(
            config, graphs, files, threads, precision, description.ranges or None
        )
    except DyTrackError:
        raise
    except Exception as error:  # each runtime has errors of its own
        damaged = _first_damaged(files, runtime) or folder
        raise CheckpointError(
            f"{damaged} is damaged; export again ({runtime} cannot read it: {type(error).__name__})"
        ) from error


def _first_damaged(files: Mapping[str, Path], runtime: str) -> Path | None:
    """Find the file that a runtime cannot read: they are small, and this is said once."""
    for file in files.values():
        try:
            if runtime == "onnx":
                onnx_engine.check(file)
            else:
                openvino_engine.check(file)
        except Exception:  # noqa: BLE001  (each runtime has errors of its own)
            return file
    return None


def find_ranges(
    saved: SavedTracker, pairs: Iterable[quantisation.Pair]
) -> dict[str, list[tuple[float, float]]]:
    """Find the ranges of a tracker's activations on pictures, for static int8.

    Args:
        saved: The tracker.
        pairs: Crops of real pictures; see :func:`~dytrack_model.runtime.quantisation.pairs_of`.

    Raises:
        ConfigurationError: There is no picture.
        RuntimeMissingError: OpenVINO is not installed.
    """
    core = openvino_engine.core()
    config = saved.network.config

    def share(box: NDArray[np.float64]) -> NDArray[np.float32]:
        boxes = torch.from_numpy(box.astype(np.float32))
        return target_share(boxes, config.template_map_size).numpy()

    with tempfile.TemporaryDirectory(prefix="dytrack-") as folder:
        write_graphs(saved, Path(folder), "onnx")
        graphs = tuple(graph for graph in chain(config) if not graph.narrow)
        files = {graph.name: Path(folder) / f"{graph.name}.onnx" for graph in graphs}
        reads = share if config.reads_target_box else None
        return quantisation.observe(core, graphs, files, pairs, reads)


def describe(folder: str | Path) -> Description:
    """Read what an export holds, without opening its graphs.

    Raises:
        CheckpointError: The folder is no export, damaged, or of a newer format.
    """
    folder = Path(folder)
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_text())
        if int(description["format"]) != FORMAT:
            raise CheckpointError(
                f"{path}: format {description['format']}, this version reads {FORMAT}; export the "
                "tracker again"
            )
        config = ModelConfig.from_dict(description["model"])
        return Description(
            kind=description["kind"],
            config=config,
            points=checkpoint.parse_points(description["points"], config),
            files={graph["name"]: folder / graph["file"] for graph in description["graphs"]},
            batch=int(description["batch"]),
            ranges=checkpoint.parse_ranges(description.get("ranges", {})),
        )
    except OSError as error:
        raise CheckpointError(f"{folder}: not an exported tracker: no {DESCRIPTION}") from error
    except (ConfigurationError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error!s}; it is damaged, export again") from error


def largest_difference(engine: Engine, reference: Engine, batch: int = 1) -> float:
    """Run two engines through every graph on seeded images.

    Returns:
        The largest difference of score maps, predicted IoU and boxes, all in [0, 1]; NaN where
        one of them gives NaN.
    """
    config = reference.config
    rng = np.random.default_rng(0)
    worst = 0.0
    searches = [config.search_size] * 3 + [config.narrow_size] * bool(config.narrow_size)
    for searched in searches:
        crops = [
            rng.integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
            for side in (config.template_size, searched)
        ]
        answers = []
        for one in (engine, reference):
            boxes = np.tile([0.5, 0.5, 0.4, 0.6], (batch, 1))
            tensors = one.begin(crops[1], one.embed_template(crops[0], boxes))
            answer = []
            for k in range(one.exit_count):
                one.advance(k, tensors)
                answer.append(torch.from_numpy(one.decide(k, tensors).copy()))
                maps = one.locate(k, tensors)
                answer += [part.clone() for part in maps]
            answers.append(answer)
        for ours, theirs in zip(*answers, strict=True):
            gap = float((ours - theirs).abs().max())
            worst = gap if math.isnan(gap) else max(worst, gap)
    return worst

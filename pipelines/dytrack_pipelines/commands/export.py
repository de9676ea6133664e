"""Write a tracker for other runtimes: ``dytrack export models:/dytrack@champion --out exported``.

One graph for each stage, its decisioner included, and one for each head, since a branch on the
data does not trace, and ``stages.json`` that says how they chain. Takes seconds; ends only after
the graphs were run and agree with PyTorch. ``dytrack track --model exported`` runs the result.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import AsJson

if TYPE_CHECKING:
    from dytrack_model.checkpoint import SavedTracker


def export(
    model: Annotated[str, typer.Argument(help="A tracker's folder, or models:/NAME@ALIAS.")],
    out: Annotated[Path, typer.Option(help="Folder to write; replaced as a whole.")],
    runtime: Annotated[
        Literal["onnx", "openvino"],
        typer.Option(help="Kind of files: onnx (OpenVINO reads them too) or openvino."),
    ] = "onnx",
    batch: Annotated[
        int, typer.Option(min=1, max=4096, help="Targets in one call; shapes are fixed to it.")
    ] = 1,
    precision: Annotated[
        Literal["fp32", "int8"],
        typer.Option(help="int8 keeps ranges of activations beside the graphs; see --calibrate."),
    ] = "fp32",
    calibrate: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures or videos to find the ranges for int8 with."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write one graph per stage for another runtime, checked against PyTorch."""
    from dytrack_model.errors import ConfigurationError
    from dytrack_model.runtime import export as exports
    from dytrack_platform.experiment.registry import registry

    # Read the tracker, and find ranges for int8 where they are asked for.
    if calibrate is not None and precision != "int8":
        raise ConfigurationError("--calibrate: finds ranges for int8: give --precision int8 too")
    saved = registry.load(model)
    if precision == "int8":
        saved = with_ranges(saved, model, calibrate)
    # Write its graphs and run them beside PyTorch.
    screen.say("writing and checking a graph for each stage: half a minute or so")
    difference = exports.export(saved, out, runtime, batch)
    # Say what is there, and in which precision this machine runs it by itself.
    engine = exports.load(out)
    exits = ", ".join(str(depth) for depth in saved.network.config.exits)
    screen.say(f"wrote {out}: exits after blocks {exits}, chained by {exports.DESCRIPTION}")
    screen.say(
        f"largest difference to PyTorch in fp32: {difference:.1e} (scores and boxes, 0 to 1)"
    )
    screen.say(f"by itself {engine.runtime} runs it in {engine.precision} here")
    if as_json:
        screen.json(
            {
                "folder": str(out),
                "exits": saved.network.config.exits,
                "largest_difference": difference,
                "runtime": engine.runtime,
                "precision": engine.precision,
            }
        )


def with_ranges(saved: "SavedTracker", model: str, pictures: Path | None) -> "SavedTracker":
    """Return a tracker with ranges for static int8, found now or kept with it before.

    Ranges that are found are kept in the tracker's own folder, if it is one that can be written.

    Raises:
        ConfigurationError: There are neither pictures nor ranges.
    """
    from dytrack_model import checkpoint
    from dytrack_model.errors import ConfigurationError
    from dytrack_model.runtime import export as exports
    from dytrack_model.runtime import quantisation
    from dytrack_platform.experiment.registry import registry

    if pictures is None:
        if not saved.ranges:
            raise ConfigurationError(
                "--precision int8: this tracker has no ranges yet: give --calibrate FOLDER of "
                "pictures or videos"
            )
        return saved
    pairs = list(quantisation.pairs_of(pictures, saved.network.config))
    saved = replace(saved, ranges=exports.find_ranges(saved, pairs))
    layers = sum(len(rows) for rows in saved.ranges.values())
    screen.say(f"found the ranges of {layers} layers on {len(pairs)} pictures of {pictures}")
    if not registry.is_remote(model):
        try:
            path = checkpoint.save_ranges(model, saved.ranges, len(pairs))
            screen.say(f"kept with the tracker: {path}")
        except OSError as error:
            screen.say(f"not kept with the tracker, which cannot be written ({error.strerror})")
    return saved

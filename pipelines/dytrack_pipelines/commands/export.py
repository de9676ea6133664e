"""Write a tracker for other runtimes: ``dytrack export models:/dytrack@champion --out exported``.

One graph for each stage, its decisioner included, and one for each head, since a branch on the
data does not trace, and ``stages.json`` that says how they chain. Takes seconds; ends only after
the graphs were run and agree with PyTorch. ``dytrack track --model exported`` runs the result.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dytrack_pipelines.terminal import screen


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
) -> None:
    """Write one graph per stage for another runtime, checked against PyTorch."""
    from dytrack_model.runtime import export as exports
    from dytrack_platform.experiment.registry import registry

    # Read the tracker.
    saved = registry.load(model)
    # Write its graphs and run them beside PyTorch.
    difference = exports.export(saved, out, runtime, batch)
    # Say what is there, and in which precision this machine runs it by itself.
    engine = exports.load(out)
    exits = ", ".join(str(depth) for depth in saved.network.config.exits)
    screen.say(f"wrote {out}: exits after blocks {exits}, chained by {exports.DESCRIPTION}")
    screen.say(
        f"largest difference to PyTorch in fp32: {difference:.1e} (scores and boxes, 0 to 1)"
    )
    screen.say(f"by itself {engine.runtime} runs it in {engine.precision} here")

"""Command line options that several commands share."""

from typing import Annotated, Literal

import typer

Recipe = Annotated[
    str, typer.Argument(help="A recipe file, or the name of one that comes with dytrack.")
]
Overrides = Annotated[
    list[str],
    typer.Option("--set", help="Change a key of the recipe: --set train.epochs=3. Repeatable."),
]
Model = Annotated[
    str,
    typer.Option(
        help="A tracker: its folder, a training run's folder, or models:/NAME@ALIAS.",
    ),
]
Runtime = Annotated[
    Literal["torch", "compile", "onnx", "openvino"] | None,
    typer.Option(help="What runs the network; torch, or an export's own, where left out."),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "int8"],
    typer.Option(
        help="Arithmetic; auto is the runtime's own choice, and what ran is said. int8: openvino."
    ),
]

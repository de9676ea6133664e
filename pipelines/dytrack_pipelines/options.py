"""Command line options that several commands share."""

from typing import Annotated

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

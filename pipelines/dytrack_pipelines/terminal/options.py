"""Command line options that several commands share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

Recipe = Annotated[
    str, typer.Argument(help="A recipe file, or the name of one that comes with dytrack.")
]
Overrides = Annotated[
    list[str],
    typer.Option("--set", help="Change a key of the recipe: --set train.epochs=3. Repeatable."),
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
Annotations = Annotated[
    Path | None, typer.Option(help="Folder of SEQ.txt, or the dataset's own layout")
]
ScoredDataset = Annotated[
    str | None, typer.Option(help="In place of --annotations: a dataset to read with --root")
]
ScoredRoot = Annotated[str | None, typer.Option(help="Folder of that dataset")]
ScoredSplit = Annotated[str | None, typer.Option(help="Split of that dataset")]
Absent = Annotated[
    Path | None, typer.Option(help="Folder of SEQ.txt with a flag per frame, 1 = absent")
]
Attributes = Annotated[
    Path | None, typer.Option(help="Folder of SEQ.txt with a row of flags, or a JSON table")
]
Exclude = Annotated[list[str] | None, typer.Option(help="A sequence to leave out; repeatable")]


def key_values(options: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Read ``KEY=VALUE`` options.

    Raises:
        ConfigurationError: One has no ``=``.
    """
    from dytrack_platform.errors import ConfigurationError

    pairs = []
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise ConfigurationError(f"--tracker-option {option}: expected KEY=VALUE")
        pairs.append((key, value))
    return tuple(pairs)

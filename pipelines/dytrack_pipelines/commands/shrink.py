"""Write a tracker with smaller weights: ``dytrack shrink RUN --out small --weights int8``.

Takes seconds. Half precision halves the file and changes no box that could be seen; 8 bits, with a
scale for each row of a matrix, quarter it. What runs computes as before: for speed see
``dytrack export --precision int8``.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import AsJson


def shrink(
    model: Annotated[str, typer.Argument(help="A tracker's folder, or models:/NAME@ALIAS.")],
    out: Annotated[Path, typer.Option(help="Folder of the tracker to write.")],
    weights: Annotated[
        Literal["fp16", "int8"], typer.Option(help="What weights are kept in.")
    ] = "fp16",
    as_json: AsJson = False,
) -> None:
    """Write a tracker whose file is a half or a quarter of the size."""
    from dytrack_model import checkpoint
    from dytrack_model.errors import ConfigurationError
    from dytrack_model.folders import require_own
    from dytrack_platform.experiment.registry import registry

    checkpoint.require_place(out)
    require_own(out, (checkpoint.WEIGHTS, checkpoint.DESCRIPTION), "the tracker")
    here = out.exists() and not registry.is_remote(model)
    if here and out.resolve() == registry.find(model).resolve():
        raise ConfigurationError(
            f"--out {out}: is the tracker itself, whose exact weights would be lost; name another "
            "folder"
        )
    saved = registry.load(model)
    notes = {**saved.notes, "weights": weights}
    folder = checkpoint.save(out, saved.network, saved.points, notes, weights=weights)
    size = (folder / checkpoint.WEIGHTS).stat().st_size
    screen.say(f"wrote {folder}: {size / 1e6:.1f} MB of weights in {weights}")
    if as_json:
        screen.json({"folder": str(folder), "weights": weights, "bytes": size})

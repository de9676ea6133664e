"""Start from a published OSTrack: ``dytrack import-ostrack OSTrack_ep0300.pth.tar --out TRACKER``.

Takes seconds on any machine. The file is read without running anything in it. At its deepest exit
the tracker computes what the published one computes (without candidate elimination, which drops
tokens on the way); its shallow exits and its decisioners are the start of a training.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import AsJson


def import_ostrack(
    weights: Annotated[Path, typer.Argument(help="The published file, such as .pth.tar.")],
    out: Annotated[Path, typer.Option(help="Folder of the tracker to write.")],
    exits: Annotated[
        str, typer.Option(help="Blocks to exit after; the last one is the depth.")
    ] = "2,6,12",
    recycling: Annotated[
        Literal["none", "concat", "cascade"],
        typer.Option(help="How exits recycle features; starts without an effect."),
    ] = "cascade",
    heads: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Attention heads, where they are not the width over 64."),
    ] = None,
    search_factor: Annotated[
        float | None,
        typer.Option(help="Side of the search crop over sqrt(w*h); 4, or 5 from 384 pixels on."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a tracker with several exits out of a published OSTrack checkpoint."""
    # A mistake in the words is told before torch is loaded.
    depths = parse_exits(exits)
    from dytrack_model import checkpoint
    from dytrack_model.folders import require_own
    from dytrack_model.policy import OperatingPoint
    from dytrack_model.pretrained import ostrack
    from dytrack_model.pretrained.backbone import grouped

    checkpoint.require_place(out)
    require_own(out, (checkpoint.WEIGHTS, checkpoint.DESCRIPTION), "the tracker")
    # Read the published tensors into a network of their size.
    network, report = ostrack.import_tracker(
        weights, depths, heads=heads, search_factor=search_factor, recycling=recycling
    )
    # Its decisioners know nothing yet: it goes to full depth.
    full = OperatingPoint(name="accurate", thresholds=(float("inf"),) * (len(depths) - 1))
    notes = {"imported_from": weights.name, "architecture": "OSTrack"}
    folder = checkpoint.save(out, network, [full], notes)
    # Account for every tensor.
    rows = [
        [name, str(count), became]
        for names, became in (
            (report.loaded, "loaded"),
            (report.ignored, "ignored: the tracker has no place for it"),
            (report.untouched, "not in the file: to be trained"),
        )
        for name, count in grouped(names).items()
    ]
    screen.table(f"tensors of {weights.name}", ["tensor", "how many", "what became of it"], rows)
    screen.say(
        f"{len(report.loaded)} tensors loaded, {len(report.ignored)} ignored, "
        f"{len(report.untouched)} to be trained"
    )
    screen.say(f"tracker: {folder} (operating point accurate: full depth)")
    if as_json:
        tensors = {key: getattr(report, key) for key in ("loaded", "ignored", "untouched")}
        screen.json({"folder": str(folder), **{key: list(names) for key, names in tensors.items()}})


def parse_exits(text: str) -> tuple[int, ...]:
    """Read exits as they are typed: ``2,6,12``.

    Raises:
        ConfigurationError: The text is not whole numbers with commas.
    """
    from dytrack_platform.errors import ConfigurationError

    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigurationError(
            f"--exits {text}: expected block numbers with commas, as in 2,6,12"
        ) from None

"""Say what a tracker costs: ``dytrack describe models:/dytrack@champion`` or ``… tiny``.

Counts are exact (attention products included); milliseconds are measured here and now, each
route in turn, on one thread unless told otherwise.
"""

from dataclasses import asdict
from typing import Annotated

import typer

from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import AsJson, Device, Precision, Runtime, Threads


def describe(
    model: Annotated[
        str,
        typer.Argument(
            help="A variant (test, tiny, small, base), a tracker's folder, or models:/NAME@ALIAS."
        ),
    ],
    frames: Annotated[
        int, typer.Option(min=0, max=100_000, help="Frames to time at each exit; 0 times none.")
    ] = 20,
    threads: Threads = 1,
    device: Device = "cpu",
    runtime: Runtime = None,
    precision: Precision = "auto",
    as_json: AsJson = False,
) -> None:
    """Show parameters, GMACs and milliseconds of each exit, and the operating points."""
    import torch

    from dytrack_model.config import VARIANTS
    from dytrack_model.cost import exit_costs
    from dytrack_model.network import DyTrackNetwork
    from dytrack_model.runtime import build
    from dytrack_platform.experiment.registry import registry

    # Find the network: a preset without training, or a saved tracker.
    torch.set_num_threads(threads)
    saved = None if model in VARIANTS else registry.load(model)
    network = saved.network if saved else DyTrackNetwork(VARIANTS[model])
    # Count and time every route.
    engine = build(network, runtime or "torch", precision, device, threads=threads)
    costs = exit_costs(network, engine, frames=frames)
    if as_json:
        screen.json(
            {
                "model": network.config.to_dict(),
                "runtime": engine.runtime,
                "precision": engine.precision,
                "threads": threads,
                "exits": [asdict(cost) for cost in costs],
                "points": [asdict(point) for point in saved.points] if saved else [],
            }
        )
        return
    deepest = costs[network.exit_count - 1]
    # Show them as absolute numbers and as shares of full depth.
    rows = [
        [
            f"{cost.depth}{' narrow' if cost.narrow else ''}",
            f"{cost.parameters / 1e6:.3f} M",
            f"{cost.gmacs:.4f}",
            f"{cost.gmacs / deepest.gmacs:.0%}",
            "" if cost.milliseconds is None else f"{cost.milliseconds:.2f}",
            ""
            if cost.milliseconds is None or deepest.milliseconds is None
            else f"{cost.milliseconds / deepest.milliseconds:.0%}",
        ]
        for cost in costs
    ]
    config = network.config
    title = (
        f"{config.variant}: {config.backbone}, template {config.template_size}, "
        f"search {config.search_size}{f' or {config.narrow_size}' if config.narrow_size else ''}, "
        f"{config.attention} attention, {config.recycling} recycling"
    )
    columns = ["exit after block", "parameters", "GMACs", "of full", "ms", "of full"]
    screen.table(title, columns, rows)
    if frames:
        plural = "s" if threads > 1 else ""
        how = f"{engine.runtime}, {engine.precision}, {threads} thread{plural}"
        screen.say(f"ms: median of {frames} frames on {how}, search crop to box")
    screen.say("GMACs: linear layers, convolutions and both attention products; FLOPs are twice.")
    for point in saved.points if saved else ():
        when = "depth is not worth its" if point.value else "the predicted IoU reaches"
        where = ", the narrow region while the target is slow" if point.narrow else ""
        screen.say(f"operating point {point.name}: leave where {when} {point.rule}{where}")

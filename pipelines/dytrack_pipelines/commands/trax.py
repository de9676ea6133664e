"""Speak TraX, so that vot-toolkit runs our tracker: the command of a ``trackers.ini``.

    [DyTrack]
    label = DyTrack
    protocol = trax
    command = dytrack trax --model models:/dytrack@champion --point balanced

Hardware: one core, or a GPU with ``--device cuda``. It runs until the toolkit says quit. Needs the
extra ``third-party``.
"""

from typing import Annotated

import typer

from dytrack_pipelines.terminal.options import Device, Precision, Runtime, Threads


def trax(
    model: Annotated[
        str | None, typer.Option(help="A tracker's folder, or models:/NAME@ALIAS")
    ] = None,
    point: Annotated[str, typer.Option(help="Operating point")] = "balanced",
    tracker: Annotated[
        str | None, typer.Option(help="In place of --model: cv2:MIL, static, ...")
    ] = None,
    threads: Threads = 1,
    device: Device = "cpu",
    runtime: Runtime = None,
    precision: Precision = "auto",
) -> None:
    """Serve one tracker to vot-toolkit over TraX."""
    import torch

    from dytrack_platform import load_tracker
    from dytrack_platform.errors import ConfigurationError, RuntimeMissingError
    from dytrack_platform.evaluation.tracking import opencv_trackers

    # The protocol's library is an extra.
    try:
        from dytrack_platform.interop.trax import serve
    except ModuleNotFoundError as error:
        raise RuntimeMissingError(
            f"{error.name} is not installed: pip install 'dytrack[third-party]'"
        ) from error
    # Make the tracker that was asked for.
    if (model is None) == (tracker is None):
        raise ConfigurationError("model: give --model, or --tracker for one that is not ours")
    torch.set_num_threads(threads)
    if tracker is not None:
        kind, options = opencv_trackers.with_options(tracker)
        serve(opencv_trackers.make_third_party(kind, options), kind)
        return
    # Serve it until the toolkit quits.
    ours = load_tracker(model or "", point, runtime, precision, device, threads=threads)
    serve(ours, f"DyTrack-{point}")

"""Follow something in your own video: ``dytrack track VIDEO --init x,y,w,h --out out.mp4``.

Runs on one CPU core. The box is coloured by the exit that gave it (green: the first), grey where
the tracker believes that it lost the target; the strip below the image is the time line.
"""

import csv
import math
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import Precision, Runtime

if TYPE_CHECKING:
    from dytrack_pipelines.media.overlay import Mark

_COLUMNS = ("frame", "x", "y", "w", "h", "exit", "predicted_iou", "lost", "state")


def track(
    video: Annotated[Path, typer.Argument(help="A video file that OpenCV can open.")],
    init: Annotated[str, typer.Option(help="The target's box in the first frame: x,y,w,h.")],
    model: Annotated[
        str,
        typer.Option(
            help="A tracker's or an export's folder, models:/NAME@ALIAS, or reference: the tracker "
            "that comes with dytrack."
        ),
    ] = "reference",
    point: Annotated[
        str, typer.Option(help="Operating point: fast, quick, balanced, careful or accurate.")
    ] = "balanced",
    out: Annotated[
        Path | None, typer.Option(help="Video to write: .mp4, .avi, or .webm for browsers.")
    ] = None,
    boxes: Annotated[Path | None, typer.Option("--csv", help="Table of boxes to write.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the network.")] = 1,
    runtime: Runtime = None,
    precision: Precision = "auto",
) -> None:
    """Track a target through a video, and write the video with boxes and a table of them."""
    import torch

    from dytrack_model.images import VideoReader
    from dytrack_pipelines.media.overlay import Mark, draw
    from dytrack_pipelines.media.video import VideoWriter
    from dytrack_platform import load_tracker

    # Open everything before the first frame is tracked, so that a mistake costs no time.
    torch.set_num_threads(threads)
    reader = VideoReader(video)
    tracker = load_tracker(model, point, runtime, precision, threads=threads)
    exits = tracker.engine.config.exits
    film = VideoWriter(out, reader.fps)
    # Take the target from the first frame.
    frames = reader.frames()
    first = next(frames)
    tracker.start(first, parse_box(init))
    history = [Mark(box_xywh=tracker.box_xywh)]
    seconds = 0.0
    with film as writer, screen.live_line() as line:
        writer.write(draw(first.pixels, history, len(exits)))
        # Follow it frame by frame.
        for frame in frames:
            began = time.perf_counter()
            found = tracker.step(frame)
            seconds += time.perf_counter() - began
            history.append(
                Mark(
                    box_xywh=found.box_xywh,
                    exit_index=found.exit_index,
                    depth=found.exit,
                    predicted_iou=found.predicted_iou,
                    state=found.state,
                )
            )
            writer.write(draw(frame.pixels, history, len(exits)))
            line.show(f"frame {len(history)}/{reader.count}")
    # Write the table, and say what happened.
    if boxes is not None:
        write_table(boxes, history)
    engine = tracker.engine
    screen.say(f"runtime {engine.runtime}, {engine.precision}, {threads} threads")
    _report(history, seconds)
    for file in (out, boxes):
        if file is not None:
            screen.say(f"wrote {file}")


def parse_box(text: str) -> tuple[float, ...]:
    """Read ``x,y,w,h``.

    Raises:
        BoxError: It is not four numbers.
    """
    from dytrack_model.errors import BoxError

    try:
        box = tuple(float(part) for part in text.split(","))
    except ValueError:
        box = ()
    if len(box) != 4 or not all(math.isfinite(value) for value in box):
        raise BoxError(f"--init: expected four numbers x,y,w,h in pixels, got {text!r}")
    return box


def write_table(path: Path, history: "list[Mark]") -> None:
    """Write one row for each frame.

    Raises:
        StorageError: There is no space or no permission.
    """
    from dytrack_platform.errors import StorageError
    from dytrack_platform.storage.atomic import replacing

    try:
        with replacing(path) as beside, beside.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            for index, mark in enumerate(history):
                box = [f"{value:.4f}" for value in mark.box_xywh]
                score = f"{mark.predicted_iou:.4f}"
                writer.writerow([index, *box, mark.depth, score, int(mark.lost), mark.state])
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror}): free space or choose another folder"
        ) from error


def _report(history: "list[Mark]", seconds: float) -> None:
    tracked = history[1:]
    if not tracked:
        screen.say("the video has one frame: nothing to track")
        return
    shares = Counter(mark.depth for mark in tracked)
    rows = [[f"{depth}", f"{shares[depth] / len(tracked):.0%}"] for depth in sorted(shares)]
    screen.table("exits taken", ["after block", "frames"], rows)
    lost = sum(mark.lost for mark in tracked)
    screen.say(f"{len(tracked)} frames, {len(tracked) / seconds:.0f} fps, lost in {lost}")

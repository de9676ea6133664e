"""Follow something in your own video: ``dytrack track VIDEO --init x,y,w,h --out out.mp4``.

Runs on one CPU core. The box is coloured by the exit that gave it (green: the first), grey where
the tracker believes that it lost the target; the strip below the image is the time line. The table
and the video hold every frame that was tracked, also after Ctrl-C or a file that ends early.
"""

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import Device, Precision, Runtime, Threads

if TYPE_CHECKING:
    from dytrack_model import Prediction
    from dytrack_pipelines.media.overlay import Mark

_SHOWN = 8192
"""Marks kept for the time line: more than a frame is wide, and memory stays flat."""


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
    threads: Threads = 1,
    device: Device = "cpu",
    runtime: Runtime = None,
    precision: Precision = "auto",
) -> None:
    """Track a target through a video, and write the video with boxes and a table of them."""
    import torch

    from dytrack_model.errors import ImageError
    from dytrack_model.images import VideoReader
    from dytrack_pipelines.media.overlay import Mark, draw
    from dytrack_pipelines.media.table import BoxTable
    from dytrack_pipelines.media.video import VideoWriter
    from dytrack_platform import load_tracker
    from dytrack_platform.storage.outputs import check_outputs

    # Check and open everything before the first frame is tracked, so that a mistake costs no time.
    box = parse_box(init)
    check_outputs({"--out": out, "--csv": boxes}, [video, model])
    torch.set_num_threads(threads)
    reader = VideoReader(video)
    tracker = load_tracker(model, point, runtime, precision, device, threads=threads)
    exits = tracker.engine.config.exits
    film = VideoWriter(out, reader.fps)
    if out is not None and abs(film.fps - reader.fps) > 1e-3:
        screen.say(f"{video} says {reader.fps:g} frames/s; {out} is written at {film.fps:g}")
    # Take the target from the first frame.
    frames = reader.frames()
    first = next(frames)
    tracker.start(first, box)
    so_far = Followed([Mark(box_xywh=tracker.box_xywh)])
    stopped: BaseException | None = None
    with BoxTable(boxes) as table, film as writer, screen.live_line() as line:
        writer.write(draw(first.pixels, so_far.recent, len(exits)))
        table.write(so_far.recent[-1])
        # Follow it frame by frame; what was found so far is kept however that ends.
        try:
            for frame in frames:
                began = time.perf_counter()
                found = tracker.step(frame)
                so_far.add(found, time.perf_counter() - began)
                table.write(so_far.recent[-1])
                writer.write(draw(frame.pixels, so_far.recent, len(exits)))
                line.show(f"frame {1 + so_far.frames}/{reader.count}")
        except (KeyboardInterrupt, ImageError) as error:
            stopped = error
    # Say what happened.
    engine = tracker.engine
    screen.say(f"runtime {engine.runtime}, {engine.precision}, {threads} threads")
    _report(so_far)
    for file in (out, boxes):
        if file is not None:
            screen.say(f"wrote {file}")
    if isinstance(stopped, KeyboardInterrupt):
        screen.say(f"interrupted after {1 + so_far.frames} of {reader.count} frames")
        raise typer.Exit(130)
    if stopped is not None:
        raise stopped


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


@dataclass
class Followed:
    """What was found in the frames so far."""

    recent: "list[Mark]"
    """Marks of the last frames, the first frame's given box to begin with."""
    taken: Counter[int] = field(default_factory=Counter)
    """Frames by the depth of their exit."""
    lost: int = 0
    seconds: float = 0.0

    @property
    def frames(self) -> int:
        """Frames after the first."""
        return self.taken.total()

    def add(self, found: "Prediction", seconds: float) -> None:
        """Take in the next frame's prediction and the time that it took."""
        from dytrack_pipelines.media.overlay import Mark

        mark = Mark(
            box_xywh=found.box_xywh,
            exit_index=found.exit_index,
            depth=found.exit,
            predicted_iou=found.predicted_iou,
            state=found.state,
        )
        self.recent.append(mark)
        del self.recent[:-_SHOWN]
        self.taken[mark.depth] += 1
        self.lost += mark.lost
        self.seconds += seconds


def _report(so_far: Followed) -> None:
    if not so_far.frames:
        screen.say("one frame: nothing to track")
        return
    rows = [[f"{d}", f"{n / so_far.frames:.0%}"] for d, n in sorted(so_far.taken.items())]
    screen.table("exits taken", ["after block", "frames"], rows)
    rate = so_far.frames / max(so_far.seconds, 1e-9)
    screen.say(f"{so_far.frames} frames, {rate:.0f} fps, lost in {so_far.lost}")

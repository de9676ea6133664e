"""Follow something in your own video: ``dytrack track VIDEO --init x,y,w,h --out out.mp4``.

VIDEO is a video file, a folder of images or a pattern such as ``frames/*.jpg``, the number of a
camera, or the address of a stream (``rtsp://...``). Runs on one CPU core. Boxes are coloured by the
exit that gave them (green: the first), grey where the tracker believes that it lost the target; the
strip below the image is the first target's time line. All files hold every frame that was tracked,
also after Ctrl-C or a source that ends early.
"""

import copy
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import (
    AsJson,
    Device,
    LongVideosRuntime,
    Precision,
    Threads,
    rows_for_programs,
)

if TYPE_CHECKING:
    from dytrack_model import RGB, Prediction, Tracker
    from dytrack_model.runtime.engine import Engine
    from dytrack_pipelines.media.boxes import Boxes
    from dytrack_pipelines.media.results import BoxFiles
    from dytrack_pipelines.media.sources import Source
    from dytrack_pipelines.media.video import VideoWriter
    from dytrack_platform.interop.rerun_recording import RerunRecording

_SHOWN = 8192
"""Marks kept for the time line: more than a frame is wide, and memory stays flat."""
_CHANGES = 12
"""Times lost and found that the summary names."""


def track(
    video: Annotated[
        str,
        typer.Argument(
            help="A video, a folder or pattern of images, a camera's number, rtsp://..."
        ),
    ],
    init: Annotated[
        list[str] | None,
        typer.Option(help="A target's box in the first frame: x,y,w,h. Repeatable."),
    ] = None,
    init_from: Annotated[
        Path | None, typer.Option(help="Boxes of the first frame: JSON, or YOLO's .txt.")
    ] = None,
    select: Annotated[
        bool, typer.Option("--select", help="Draw boxes on the first frame, in a window.")
    ] = False,
    model: Annotated[
        str,
        typer.Option(
            help="A tracker's or an export's folder, models:/NAME@ALIAS, or reference: the tracker "
            "that comes with dytrack."
        ),
    ] = "reference",
    point: Annotated[
        str,
        typer.Option(
            help="Operating point of the tracker (fast, balanced or accurate of reference), full "
            "depth, or an exit's thresholds such as 0.6,0.8."
        ),
    ] = "balanced",
    out: Annotated[
        Path | None, typer.Option(help="Video to write: .mp4, .avi, or .webm for browsers.")
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            callback=rows_for_programs,
            help="Table of boxes to write; - for standard output, row by row.",
        ),
    ] = None,
    jsonl: Annotated[
        Path | None,
        typer.Option(callback=rows_for_programs, help="JSON lines to write, or -."),
    ] = None,
    mot: Annotated[
        Path | None,
        typer.Option(callback=rows_for_programs, help="MOTChallenge text to write, or -."),
    ] = None,
    lasot: Annotated[
        Path | None, typer.Option(help="LaSOT text to write; a file a target where several.")
    ] = None,
    cvat: Annotated[Path | None, typer.Option(help="CVAT video XML to write.")] = None,
    coco: Annotated[Path | None, typer.Option(help="COCO-video JSON to write.")] = None,
    yolo: Annotated[
        Path | None, typer.Option(help="Folder to write YOLO's labels into, a file a frame.")
    ] = None,
    rerun: Annotated[
        Path | None, typer.Option(help="Rerun recording (.rrd) to write, frames and all.")
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Show frames in a window meanwhile.")
    ] = False,
    threads: Threads = 1,
    device: Device = "cpu",
    runtime: LongVideosRuntime = None,
    precision: Precision = "auto",
    as_json: AsJson = False,
) -> None:
    """Track targets through a video, and write it with boxes, and files of boxes."""
    import torch

    from dytrack_model.errors import ImageError
    from dytrack_model.runtime import quickest
    from dytrack_pipelines.media.boxes import first_boxes, require_one_way, require_window
    from dytrack_pipelines.media.outputs import (
        STANDARD_OUTPUT,
        check_files,
        check_labels,
        check_recording,
        require_one_stream,
        spread,
    )
    from dytrack_pipelines.media.results import BoxFiles
    from dytrack_pipelines.media.sources import open_source
    from dytrack_pipelines.media.video import VideoWriter

    # Check and open everything before the first frame is tracked, so that a mistake costs no time.
    wanted_tables = {"--csv": boxes, "--jsonl": jsonl, "--mot": mot, "--lasot": lasot}
    wanted_tables |= {"--cvat": cvat, "--coco": coco, "--yolo": yolo}
    require_one_stream({"--out": out, "--rerun": rerun, **wanted_tables}, as_json=as_json)
    files = {
        option: path
        for option, path in wanted_tables.items()
        if option != "--yolo" and path != STANDARD_OUTPUT
    }
    require_one_way(init, init_from, select)
    for option, wanted in (("--select", select), ("--show", show)):
        if wanted:
            require_window(option)
    check_files({"--out": out, "--rerun": rerun, **files}, [video, model, init_from])
    check_labels(yolo)
    check_recording(rerun)
    typed = first_boxes(init or (), None, None)
    torch.set_num_threads(threads)
    source = open_source(video)
    check_files({"--out": out, **files}, source.files)
    chosen = runtime or quickest(model, None if source.live else source.count, precision, device)
    tracker = _opened(model, point, chosen, precision, device, threads)
    film = VideoWriter(out, source.fps)
    if out is not None and abs(film.fps - source.fps) > 1e-3:
        screen.say(f"{video} says {source.fps:g} frames/s; {out} is written at {film.fps:g}")
    # Take the targets from the first frame.
    first = next(source.frames)
    starts = typed or first_boxes((), init_from, first, draw=select)
    check_files({"--out": out, **spread(files, list(starts))}, [video, model, init_from])
    _doubt(starts, first)
    so_far = Followed(starts, tracker, first)
    stopped: BaseException | None = None
    with (
        BoxFiles(wanted_tables, list(starts), first.size, video, source.names) as tables,
        film as writer,
        shown(source) as tell,
        recording(rerun) as so_far.recorder,
    ):
        so_far.keep(first, tables, writer, show)
        # Follow them frame by frame; what was found so far is kept however that ends.
        try:
            for frame in source.frames:
                so_far.step(frame)
                so_far.keep(frame, tables, writer, show)
                tell(1 + so_far.frames)
        except (KeyboardInterrupt, ImageError) as error:
            stopped = error
    # Say what happened.
    engine = tracker.engine
    _say_runtime(engine, threads, chosen=runtime is not None or device != "cpu")
    _report(so_far, source, as_json)
    seen = show or as_json or STANDARD_OUTPUT in wanted_tables.values()
    _say_files((out, *spread(files, list(starts)).values(), yolo, rerun), seen=seen)
    if stopped is not None:
        _end(stopped, so_far, source)


def _opened(
    model: str,
    point: str,
    runtime: str | None,
    precision: Precision,
    device: str,
    threads: int,
) -> "Tracker":
    """Open the tracker, and say so where that takes seconds."""
    from dytrack_platform import load_tracker

    if runtime not in (None, "torch"):
        screen.say(f"opening {model} on {runtime}")
    return load_tracker(model, point, runtime, precision, device, threads=threads)


def _end(stopped: BaseException, so_far: "Followed", source: "Source") -> NoReturn:
    """Leave with what ended the frames before their end."""
    if not isinstance(stopped, KeyboardInterrupt):
        raise stopped
    of = f" of {source.count}" if source.count else ""
    screen.say(f"interrupted after {so_far.kept}{of} frames")
    raise typer.Exit(130)


def _doubt(starts: "Boxes", first: "RGB") -> None:
    """Say so where a box lies mostly outside of the frame: corners were given, as often as not."""
    from dytrack_model.crops import check_box, share_inside

    for box in starts.values():
        share = share_inside(check_box(box, first.size), first.size)
        if share < 0.5:
            shown = ",".join(f"{value:g}" for value in box)
            screen.say(
                f"only {share:.0%} of the box {shown} lies inside the {first.size[0]}x"
                f"{first.size[1]} frame; a box is x,y,width,height"
            )


@contextmanager
def recording(path: Path | None) -> "Iterator[RerunRecording | None]":
    """Open a recording of Rerun where one is asked for."""
    if path is None:
        yield None
        return
    from dytrack_platform.interop.rerun_recording import RerunRecording

    with RerunRecording(path) as recorder:
        yield recorder


@contextmanager
def shown(source: "Source") -> Iterator[Callable[[int], None]]:
    """Show how far it is: a bar on a terminal where the length is known; yields its callback."""
    from dytrack_pipelines.terminal.progress import counting_bar

    if source.count and screen.console.is_terminal:
        with counting_bar("tracking", source.count) as bar:
            yield bar
        return
    with screen.live_line() as line:
        of = f"/{source.count}" if source.count else ""
        yield lambda done: line.show(f"frame {done}{of}")


@dataclass
class Followed:
    """The targets, and what was found in the frames so far."""

    starts: "Boxes"
    tracker: "Tracker"
    first: "RGB"
    taken: Counter[int] = field(default_factory=Counter)
    """Frames of targets by the depth of their exit."""
    doubtful: int = 0
    lost: int = 0
    frames: int = 0
    """Frames after the first."""
    kept: int = 0
    """Frames that stand in the files."""
    seconds: float = 0.0
    changes: list[str] = field(default_factory=list)
    """Which target was lost and found when; the first of them."""
    changed: int = 0
    recorder: "RerunRecording | None" = None

    def __post_init__(self) -> None:
        from dytrack_model import Tracker
        from dytrack_pipelines.media.overlay import Mark

        self._names = list(self.starts)
        # One network, and for each target a state of its own.
        self._trackers = {self._names[0]: self.tracker} | {
            name: Tracker(self.tracker.engine, copy.deepcopy(self.tracker.policy))
            for name in self._names[1:]
        }
        for name, box in self.starts.items():
            self._trackers[name].start(self.first, box)
        self._marks = {name: Mark(box_xywh=one.box_xywh) for name, one in self._trackers.items()}
        self._recent: list[Mark] = []

    def step(self, frame: "RGB") -> None:
        """Find every target in the next frame."""
        began = time.perf_counter()
        found = {name: one.step(frame) for name, one in self._trackers.items()}
        # Whoever interrupts the lines above has all targets of this frame uncounted.
        self.seconds += time.perf_counter() - began
        self.frames += 1
        for name, prediction in found.items():
            self._take(name, prediction)

    def _take(self, name: str, found: "Prediction") -> None:
        from dytrack_pipelines.media.overlay import Mark

        mark = Mark(
            box_xywh=found.box_xywh,
            exit_index=found.exit_index,
            depth=found.exit,
            predicted_iou=found.predicted_iou,
            state=found.state,
        )
        # Doubt comes and goes within a few frames: counted, and told of by the tables.
        if mark.state != self._marks[name].state and mark.state in ("lost", "found again"):
            self.changed += 1
            if len(self.changes) < _CHANGES:
                which = f" (target {name})" if len(self._names) > 1 else ""
                self.changes.append(f"frame {self.frames}: {mark.state}{which}")
        self._marks[name] = mark
        self.taken[mark.depth] += 1
        self.doubtful += mark.state == "doubtful"
        self.lost += mark.lost

    def keep(self, frame: "RGB", tables: "BoxFiles", writer: "VideoWriter", show: bool) -> None:
        """Write the frame's boxes, and draw them where that is asked for."""
        from dytrack_pipelines.media.overlay import draw

        tables.write(self._marks, frame.size)
        if self.recorder is not None:
            self.recorder.write(frame.pixels, self._marks)
        lead = self._names[0]
        self._recent.append(self._marks[lead])
        del self._recent[:-_SHOWN]
        self.kept += 1
        if not (show or writer.wanted):
            return
        others = {name: mark for name, mark in self._marks.items() if name != lead}
        drawn = draw(frame.pixels, self._recent, self.tracker.engine.exit_count, others)
        writer.write(drawn)
        if show:
            import cv2

            cv2.imshow("dytrack", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
            if cv2.waitKey(1) == 27:  # Escape
                raise KeyboardInterrupt


def _say_runtime(engine: "Engine", threads: int, *, chosen: bool) -> None:
    many = "threads" if threads > 1 else "thread"
    screen.say(f"runtime {engine.runtime}, {engine.precision}, {threads} {many}")
    if not chosen and engine.runtime == "torch" and not find_spec("openvino"):
        screen.say("pip install 'dytrack[export]' brings OpenVINO, which is faster in long videos")


def _say_files(files: "Sequence[Path | None]", *, seen: bool) -> None:
    """Say what was written, and how to have something where nobody would see a box."""
    written = [file for file in files if file is not None]
    for file in written:
        screen.say(f"wrote {file}")
    if not written and not seen:
        screen.say("no file was asked for: --out VIDEO draws the boxes, --csv FILE lists them")


def _report(so_far: Followed, source: "Source", as_json: bool) -> None:
    if as_json:
        screen.json(
            {
                "runtime": so_far.tracker.engine.runtime,
                "precision": so_far.tracker.engine.precision,
                "targets": len(so_far.starts),
                "frames": so_far.frames,
                "seconds": so_far.seconds,
                "doubtful": so_far.doubtful,
                "lost": so_far.lost,
                "exits": dict(sorted(so_far.taken.items())),
            }
        )
    if not so_far.frames:
        screen.say("one frame: nothing to track")
        return
    total = so_far.taken.total()
    rows = [[f"{d}", f"{n / total:.0%}"] for d, n in sorted(so_far.taken.items())]
    screen.table("exits taken", ["after block", "frames"], rows)
    rate = so_far.frames / max(so_far.seconds, 1e-9)
    targets = len(so_far.starts)
    several = f" of {targets} targets" if targets > 1 else ""
    noun = "frame" if so_far.frames == 1 else "frames"
    screen.say(
        f"{so_far.frames} {noun}{several}, {rate:.0f} fps, doubtful in {so_far.doubtful}, lost in "
        f"{so_far.lost}"
    )
    if so_far.changes:
        more = so_far.changed - len(so_far.changes)
        tail = f", and {more} more" if more else ""
        screen.say(f"{'; '.join(so_far.changes)}{tail}")
    if source.live is not None and source.live.dropped:
        screen.say(f"{source.live.dropped} frames came while others were tracked, and were dropped")

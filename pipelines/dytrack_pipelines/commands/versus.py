"""Compare our tracker with what people use today, on your videos or on a dataset.

    dytrack versus --model runs/NAME --peers peers --dataset video --root videos --split test \
        --runtime openvino --out versus
    dytrack versus --model runs/NAME --peers peers --video dog.mp4 --init 120,80,64,48

Hardware: one core, or ``--threads``. Time: the sum of all trackers' own. Each tracker has a process
of its own under a limit of memory, and they take turns sequence by sequence, so that speeds can be
compared. Without truth (``--video``) their agreement is told in place of scores.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dytrack_pipelines.terminal.options import AsJson, JsonFile, Precision, Runtime, Threads

if TYPE_CHECKING:
    from dytrack_platform.datasets.sequence import VideoSequence
    from dytrack_platform.evaluation.peers.contest import Outcome
    from dytrack_platform.evaluation.report.versus import Setting

_GIB = 1 << 30


def versus(
    model: Annotated[
        str,
        typer.Option(
            help="Our tracker: its folder, models:/NAME@ALIAS, or one that comes with dytrack."
        ),
    ] = "reference",
    point: Annotated[
        list[str] | None,
        typer.Option(help="Stored point, full, 0.6,0.8, or exit-N; all points and exits if none"),
    ] = None,
    peers: Annotated[
        Path | None, typer.Option(help="Folder with the ONNX files of NanoTrack and TrackerVit")
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(help="nano-v1, nano-v2, nano-v3, vit, mil, csrt or kcf; all if none"),
    ] = None,
    contrib_python: Annotated[
        Path | None,
        typer.Option(help="A Python that has opencv-contrib-python-headless, for csrt and kcf"),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Layout of the data: got10k, lasot, video, ...")
    ] = None,
    root: Annotated[str | None, typer.Option(help="Folder or URL of the dataset")] = None,
    split: Annotated[str | None, typer.Option(help="Split of the dataset")] = None,
    sequence: Annotated[
        list[str] | None, typer.Option(help="Only this sequence of the dataset; repeatable")
    ] = None,
    video: Annotated[
        list[Path] | None, typer.Option(help="In place of a dataset: a video; repeatable")
    ] = None,
    init: Annotated[
        list[str] | None, typer.Option(help="The target's box x,y,w,h in each video's first frame")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Profile of AUC and precision; the dataset's by default")
    ] = None,
    threads: Threads = 1,
    memory: Annotated[
        float, typer.Option(min=0.0, help="GiB of address space for each tracker; 0: no limit")
    ] = 4.0,
    runtime: Runtime = None,
    precision: Precision = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the page and the picture; none if left out")
    ] = None,
    out_video: Annotated[
        Path | None,
        typer.Option(
            help="Video of all trackers side by side; of several sequences, a file for each"
        ),
    ] = None,
    json_file: JsonFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare our tracker with NanoTrack, TrackerVit, CSRT, KCF and MIL."""
    from dytrack_pipelines.terminal import screen
    from dytrack_pipelines.terminal.progress import share_line
    from dytrack_pipelines.terminal.scoring_input import write_json
    from dytrack_platform.errors import ConfigurationError
    from dytrack_platform.evaluation.peers import catalogue, contest
    from dytrack_platform.evaluation.report import versus as report
    from dytrack_platform.evaluation.report.summary import reporting_profile
    from dytrack_platform.evaluation.scoring.profiles import one_pass_default, profile
    from dytrack_platform.experiment.evaluate import versus as ours
    from dytrack_platform.experiment.evaluate.runtime_config import RuntimeConfig
    from dytrack_platform.experiment.registry import registry
    from dytrack_platform.storage.outputs import check_folder, check_outputs

    check_outputs({"--json-file": json_file}, [*(video or []), root, model])
    if out is not None:
        check_folder("--out", out, report.WRITTEN, report.WRITTEN)
    # Find everybody and everything before the first frame, so that a mistake costs no time.
    most = int(memory * _GIB)
    others = catalogue.peer_entries(
        peer or (), peers, contrib_python, threads=threads, memory_bytes=most
    )
    how = RuntimeConfig(runtime=runtime or "torch", precision=precision, threads=threads)
    own = ours.our_entries(registry.find(model), point or (), how, memory_bytes=most)
    name = dataset or "video"
    if video:
        if dataset or root or split or sequence:
            raise ConfigurationError("--video: give videos or a --dataset, not both")
        sequences = own_videos(video, init or [])
    else:
        sequences = from_dataset(dataset, root, split, sequence or [])
    default = one_pass_default(name)
    rules = reporting_profile(profile(protocol or default.profile))
    report.refuse_unscorable(sequences, rules)
    films = film_files(out_video, [sequence.name for sequence in sequences])
    written = {f"--out-video ({name})": path for name, path in films.items()}
    check_outputs({"--json-file": json_file, **written}, [*(video or []), root, model])
    setting = _setting(threads, catalogue.TRAINED_ON)
    # Everybody follows everything.
    with screen.live_line() as line:
        outcomes = contest.hold(
            [*own, *others],
            sequences,
            share_line(line),
        )
    # Score it, and show the table.
    found = report.judge(name, outcomes, sequences, rules, setting)
    header, rows = report.table_rows(found)
    screen.table(report.title(found), header, rows)
    for remark in report.remarks(found):
        screen.say(remark)
    if json_file is not None:
        write_json(json_file, found.to_dict())
    if out is not None:
        screen.say(f"page: {report.write_versus(out, found)}")
    for one in sequences if films else ():
        write_film(films[one.name], one, outcomes)
        screen.say(f"video: {films[one.name]}")
    if as_json:
        screen.json(found.to_dict())


def film_files(path: Path | None, sequences: list[str]) -> dict[str, Path]:
    """Name the video of each sequence: the given one, or with the sequence's name before its end.

    Raises:
        DataError: The suffix names no format that can be written.
    """
    from dytrack_pipelines.media.video import VideoWriter

    if path is None:
        return {}
    VideoWriter(path, 25.0)  # refuses a suffix
    if len(sequences) == 1:
        return {sequences[0]: path}
    return {
        name: path.with_name(f"{path.stem}.{name.replace('/', '-')}{path.suffix}")
        for name in sequences
    }


def write_film(path: Path, sequence: "VideoSequence", outcomes: "list[Outcome]") -> None:
    """Write a sequence with a panel for each tracker that took part.

    Raises:
        StorageError: It cannot be written.
    """
    import numpy as np

    from dytrack_pipelines.media.panels import Track, film
    from dytrack_pipelines.media.video import VideoWriter, frame_rate
    from dytrack_platform.evaluation.peers.process import NOWHERE

    tracks = []
    for outcome in outcomes:
        if sequence.name in outcome.runs:
            run = outcome.runs[sequence.name]
            boxes = run.result.boxes_xywh.copy()
            boxes[(boxes == NOWHERE).all(axis=1)] = np.nan
            tracks.append(Track(name=str(outcome.entry), boxes_xywh=boxes, lost=run.lost))
    first, _, number = sequence.frames.path(0).rpartition("#")
    rate = frame_rate(Path(first)) if number == "0" else 0.0
    with VideoWriter(path, rate) as writer:
        for picture in film(sequence.frames.iterate(), tracks, sequence.boxes_xywh):
            writer.write(picture)


def own_videos(videos: list[Path], boxes: list[str]) -> "list[VideoSequence]":
    """Open videos of which only the first box is known.

    Raises:
        BoxError: A box is missing, is not four numbers, has no area, or lies outside its video.
        DataError: A file is no video, or has one frame.
    """
    import numpy as np

    from dytrack_pipelines.media.boxes import parse_box
    from dytrack_platform.datasets.io.frames import VideoFrames
    from dytrack_platform.datasets.sequence import VideoSequence
    from dytrack_platform.errors import BoxError, DataError
    from dytrack_platform.storage.tree import Tree

    if len(boxes) != len(videos):
        raise BoxError(
            f"--init: give one for each --video: {len(videos)} videos, {len(boxes)} boxes"
        )
    sequences: list[VideoSequence] = []
    for number, (path, text) in enumerate(zip(videos, boxes, strict=True)):
        x, y, w, h = parse_box(text)
        if not path.is_file():
            raise DataError(f"{path}: no such video")
        frames = VideoFrames.open(Tree(str(path.parent)), path.name)
        if len(frames) < 2:
            raise DataError(f"{path}: the video has one frame: nothing to track")
        height, width = frames.read(0).shape[:2]
        if w <= 0 or h <= 0 or x + w <= 0 or y + h <= 0 or x >= width or y >= height:
            raise BoxError(
                f"--init: box {text} has no area or lies outside the frames of {path}, which have "
                f"{width}x{height} pixels"
            )
        known = np.full((len(frames), 4), np.nan)
        known[0] = x, y, w, h
        twins = [other.name for other in sequences]
        sequences.append(
            VideoSequence(
                dataset="video",
                name=path.stem if path.stem not in twins else f"{path.stem}.{number + 1}",
                frames=frames,
                boxes_xywh=known,
                visible=np.isfinite(known).all(axis=1),
            )
        )
    return sequences


def from_dataset(
    dataset: str | None, root: str | None, split: str | None, names: list[str]
) -> "list[VideoSequence]":
    """Read a dataset, or some sequences of it.

    Raises:
        ConfigurationError: Neither a dataset with its root nor a video was given.
        DataError: It cannot be read, has no sequence of a name, or none that can start a tracker.
    """
    import numpy as np

    from dytrack_pipelines.terminal import screen
    from dytrack_platform.datasets import readers
    from dytrack_platform.errors import ConfigurationError, DataError

    if dataset is None or root is None:
        raise ConfigurationError(
            "give --video FILE with --init x,y,w,h, or --dataset NAME with --root FOLDER"
        )
    read = list(readers.read(dataset, root, split))
    for name in names:
        if name not in {sequence.name for sequence in read}:
            raise DataError(f"--sequence {name}: {root} has no sequence of that name")
    kept = []
    for sequence in read:
        if names and sequence.name not in names:
            continue
        first = sequence.boxes_xywh[0]
        if len(sequence) < 2 or not (np.isfinite(first).all() and (first[2:] > 0).all()):
            screen.say(f"{sequence.name}: left out: its first box starts no tracker, or is all")
            continue
        kept.append(sequence)
    if not kept:
        raise DataError(f"{root}: no sequence can start a tracker")
    return kept


def _setting(threads: int, remark: str) -> "Setting":
    """Note the conditions before the trackers themselves change them."""
    import datetime
    import os

    from dytrack_platform.evaluation.peers.contest import processor
    from dytrack_platform.evaluation.report.versus import Setting

    return Setting(
        threads=threads,
        machine=processor(),
        cores=os.cpu_count() or 1,
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        remark=remark,
    )

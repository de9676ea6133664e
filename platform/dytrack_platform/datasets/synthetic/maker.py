"""Write synthetic sequences to disk in GOT-10k's layout.

Each sequence depends on (seed, split, its number) alone: the files are the same whatever the
number of processes, and a second call goes on where the first one was stopped.
"""

import json
import multiprocessing
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from dytrack_platform.datasets.synthetic.compose import compose
from dytrack_platform.datasets.synthetic.config import SynthConfig
from dytrack_platform.datasets.synthetic.scene import Drawn, draw
from dytrack_platform.errors import DataError, StorageError
from dytrack_platform.storage.tree import Tree

_RECORD = "synthetic.json"
_Job = tuple[str, str, SynthConfig, str, int]


def make(
    out: str | Path,
    config: SynthConfig,
    split: str,
    sequences: int,
    *,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Make a split of sequences.

    Args:
        out: Folder that gets a folder for the split; a root for the ``got10k`` reader.
        config: What the sequences look like.
        split: Name of the split; other splits of the same seed show other scenes.
        sequences: How many to make.
        workers: Processes; the machine's CPUs by default.
        progress: Called with the number of sequences finished so far.

    Returns:
        The split's folder.

    Raises:
        DataError: The folder holds sequences of another configuration.
        StorageError: The folder cannot be written.
    """
    folder = Path(out) / split
    record = {"configuration": config.to_dict(), "split": split, "sequences": sequences}
    _refuse_other(folder, record)
    names = [f"{split}_{number + 1:06d}" for number in range(sequences)]
    tree = Tree(str(folder))
    tree.write_bytes(_RECORD, json.dumps(record, indent=1).encode())
    missing = [i for i, name in enumerate(names) if not (folder / name).is_dir()]
    jobs = [(str(folder), names[number], config, split, number) for number in missing]
    try:
        for done, _ in enumerate(_written(jobs, workers), sequences - len(missing) + 1):
            if progress:
                progress(done)
    except DataError:
        # What it is made of was refused: the record must not refuse the next try with other
        # things where nothing was made with these.
        if not any((folder / name).is_dir() for name in names):
            (folder / _RECORD).unlink(missing_ok=True)
        raise
    tree.write_bytes("list.txt", "".join(f"{name}\n" for name in names).encode())
    return folder


def _written(jobs: list[_Job], workers: int | None) -> Iterator[None]:
    """Write sequences in as many processes as are worth it; one item for each, in order."""
    count = min(workers or os.cpu_count() or 1, len(jobs))
    if count <= 1:
        for job in jobs:
            _write_sequence(*job)
            yield
        return
    # Spawned, because a fork of a process with threads (Ray's, torch's) can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context) as pool:
        yield from pool.map(_write_sequence, *zip(*jobs, strict=True), chunksize=2)


def _refuse_other(folder: Path, record: dict[str, object]) -> None:
    path = folder / _RECORD
    if not path.is_file():
        there = sorted(item.name for item in folder.iterdir()) if folder.is_dir() else []
        if there:
            raise DataError(
                f"{folder}: holds {there[0]} that was not made here; name another folder or split"
            )
        return
    try:
        found = json.loads(path.read_text())
    except ValueError:
        found = None
    if found != record:
        raise DataError(
            f"{folder}: holds sequences of another configuration; delete it or name another folder"
        )


def _write_sequence(folder: str, name: str, config: SynthConfig, split: str, number: int) -> None:
    """Draw one sequence into a folder beside its place and move it there."""
    cv2.setNumThreads(1)  # each process has a core of its own
    rng = np.random.default_rng([config.seed, zlib.crc32(split.encode()), number])
    beside = Path(folder) / f".{name}.{os.getpid()}"
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        _draw_into(beside, config, rng)
        if not (Path(folder) / name).is_dir():  # else another process was faster, same files
            beside.rename(Path(folder) / name)
    except OSError as error:
        raise StorageError(
            f"{folder}/{name}: cannot be written ({error.strerror or error}); free some space or "
            "name another folder"
        ) from error
    finally:  # moved away by now, unless something was refused
        shutil.rmtree(beside, ignore_errors=True)


def _draw_into(folder: Path, config: SynthConfig, rng: np.random.Generator) -> None:
    scene = compose(config, rng)
    truth: list[Drawn] = []
    for index, drawn in enumerate(draw(scene, rng)):
        bgr = cv2.cvtColor(drawn.pixels, cv2.COLOR_RGB2BGR)
        _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, config.quality])
        (folder / f"{index + 1:08d}.jpg").write_bytes(encoded.tobytes())
        truth.append(drawn)
    boxes = np.array([drawn.box_xywh for drawn in truth])
    cover = np.array([_eighths(drawn.cover) for drawn in truth])
    absent = (boxes[:, 2] == 0) | (cover == 0)
    _write_table(folder / "groundtruth.txt", [",".join(f"{v:.4f}" for v in row) for row in boxes])
    _write_table(folder / "cover.label", [str(value) for value in cover])
    _write_table(folder / "absence.label", [str(int(value)) for value in absent])
    _write_table(folder / "cut_by_image.label", [str(int(drawn.cut)) for drawn in truth])
    attributes = sorted({*scene.challenges, *_measured(boxes, cover)})
    (folder / "attributes.json").write_text(json.dumps({"attributes": attributes}) + "\n")
    (folder / "meta_info.ini").write_text(
        f"[METAINFO]\nurl: made\nbegin: 00:00:00\nend: 00:00:00\nanno_fps: 10Hz\n"
        f"object_class: blob\nmotion_class: moving\nmajor_class: made\nroot_class: made\n"
        f"motion_adverb: smoothly\nresolution: ({config.width}, {config.height})\n"
    )


def _eighths(cover: float) -> int:
    """Grade the visible share as GOT-10k does, from 0 (nothing) to 8 (all)."""
    return int(np.ceil(cover * 8)) if cover > 1 / 16 else 0


def _write_table(path: Path, rows: list[str]) -> None:
    path.write_text("".join(f"{row}\n" for row in rows))


def _measured(boxes: np.ndarray, cover: np.ndarray) -> set[str]:
    """Name the challenges that the truth shows, by LaSOT's definitions."""
    seen = boxes[boxes[:, 2] > 0]
    area, ratio = seen[:, 2] * seen[:, 3], seen[:, 2] / seen[:, 3]
    found = set()
    if len(seen) < len(boxes):
        found.add("OV")
    if (cover[boxes[:, 2] > 0] == 0).any():
        found.add("FOC")
    if len(seen) and area.min() < 1000:
        found.add("LR")
    if len(seen) and (area.min() < 0.5 * area[0] or area.max() > 2 * area[0]):
        found.add("SV")
    if len(seen) and (ratio.min() < 0.5 * ratio[0] or ratio.max() > 2 * ratio[0]):
        found.add("ARC")
    return found

"""Read annotations for scoring, without frames: flat folders and the datasets' own layouts.

::

    DIR/SEQ.txt                                       any benchmark's boxes
    DIR/SEQ/groundtruth.txt                           LaSOT, GOT-10k, TNL2K, VOT
    DIR/SEQ/groundtruth_rect.txt (.1.txt, .2.txt)     OTB, two targets as SEQ.1 and SEQ.2
    DIR/CLASS/SEQ/groundtruth.txt                     LaSOT with its class folders
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.errors import ResultError
from dytrack_platform.evaluation.scoring.ground_truth import Annotation
from dytrack_platform.evaluation.scoring.result_files import (
    read_boxes,
    read_flags,
    read_numbers,
    read_text,
)

ATTRIBUTES: dict[int, tuple[str, ...]] = {
    14: ("IV", "POC", "DEF", "MB", "CM", "ROT", "BC", "VC", "SV", "FOC", "FM", "OV", "LR", "ARC"),
    11: ("IV", "OPR", "SV", "OCC", "DEF", "MB", "FM", "IPR", "OV", "BC", "LR"),
    12: ("SV", "ARC", "LR", "FM", "FOC", "POC", "OV", "BC", "IV", "VC", "CM", "SOB"),
}
"""Columns of attribute files by their number: LaSOT, OTB (MATLAB's order), UAV123."""


def read_annotations(
    folder: Path,
    *,
    absent: Path | None = None,
    attributes: Path | None = None,
    exclude: Sequence[str] = (),
) -> list[Annotation]:
    """Read every sequence of a folder.

    Args:
        folder: One of the layouts above.
        absent: Folder of ``SEQ.txt`` with one flag per frame, 1 where the target is absent.
        attributes: Folder of ``SEQ.txt`` with one row of flags, or a JSON file
            ``{"columns": [...], "sequences": {SEQ: [flags]}}``.
        exclude: Names to leave out.

    Raises:
        ResultError: The folder or a file is missing or damaged, or there is no sequence.
    """
    if not folder.is_dir():
        raise ResultError(f"{folder}: no such folder of annotations")
    files = _annotation_files(folder)
    for name in exclude:
        if name not in files:
            raise ResultError(f"--exclude {name}: {folder} has no sequence of that name")
    kept = {name: path for name, path in files.items() if name not in exclude}
    if not kept:
        raise ResultError(
            f"{folder}: no annotations; expected SEQ.txt files or SEQ/groundtruth.txt folders"
        )
    found = [_read_one(name, path) for name, path in sorted(kept.items())]
    return add_flags(found, absent=absent, attributes=attributes)


def add_flags(
    annotations: Sequence[Annotation], *, absent: Path | None = None, attributes: Path | None = None
) -> list[Annotation]:
    """Add absence flags and attributes of other files to annotations, where there are any.

    Args:
        annotations: Of any dataset.
        absent: As in :func:`read_annotations`; in place of the dataset's own flags.
        attributes: As in :func:`read_annotations`; in place of the dataset's own.

    Raises:
        ResultError: A file is missing or damaged.
    """
    changed = list(annotations)
    if absent is not None:
        changed = [
            replace(a, absent=read_flags(absent / f"{a.name}.txt", len(a.boxes_xywh)))
            for a in changed
        ]
    if attributes is not None:
        named = _read_attributes(attributes, [a.name for a in changed])
        changed = [replace(a, attributes=named.get(a.name, ())) for a in changed]
    return changed


def _annotation_files(folder: Path) -> dict[str, Path]:
    """Find the file of boxes of every sequence."""
    flat = {p.stem: p for p in folder.glob("*.txt") if not _is_list(p)}
    if flat:
        return flat
    found = {}
    for depth in ("*", "*/*"):
        for path in folder.glob(f"{depth}/groundtruth.txt"):
            found[path.parent.name] = path
        for path in folder.glob(f"{depth}/groundtruth_rect*.txt"):
            target = path.stem.removeprefix("groundtruth_rect")  # "", ".1" or ".2"
            if path.stat().st_size > 0:  # OTB's Human4 has an empty first file
                found[path.parent.name + target] = path
    return found


def _is_list(path: Path) -> bool:
    """Say whether a text file names sequences instead of holding boxes."""
    with path.open(encoding="utf-8", errors="replace") as file:
        words = re.findall(r"[A-Za-z]{2,}", file.readline())
    return any(word.lower() not in ("nan", "inf") for word in words)


def _read_one(name: str, path: Path) -> Annotation:
    boxes = read_boxes(path)
    folder = path.parent
    absent: NDArray[np.bool_] | None = None
    size, object_class = None, None
    if path.name == "groundtruth.txt":
        if (folder / "cover.label").is_file():  # GOT-10k scores by cover, not by absence.label
            absent = read_numbers(folder / "cover.label") == 0
        elif (folder / "full_occlusion.txt").is_file():
            absent = read_flags(folder / "full_occlusion.txt", len(boxes))
            absent |= read_flags(folder / "out_of_view.txt", len(boxes))
        if (folder / "meta_info.ini").is_file():
            size, object_class = _read_meta(folder / "meta_info.ini")
    if absent is not None and len(absent) != len(boxes):
        raise ResultError(f"{folder}: {len(absent)} flags for {len(boxes)} annotated frames")
    return Annotation(
        name=name, boxes_xywh=boxes, absent=absent, image_size=size, object_class=object_class
    )


def _read_meta(path: Path) -> tuple[tuple[int, int] | None, str | None]:
    """Read resolution and object class from GOT-10k's ``key: value`` lines."""
    pairs = (line.partition(":") for line in read_text(path).splitlines())
    about = {key.strip(): value.strip() for key, colon, value in pairs if colon}
    numbers = re.findall(r"\d+", about.get("resolution", ""))
    size = (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 else None
    return size, about.get("object_class")


def _read_attributes(source: Path, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    if source.is_dir() and not (source / f"{names[0]}.txt").is_file():
        tables = list(source.glob("*.json"))
        source = tables[0] if len(tables) == 1 else source
    if source.is_file():
        return _read_attribute_table(source)
    named = {}
    for name in names:
        flags = read_numbers(source / f"{name}.txt")
        if not np.isin(flags, (0, 1)).all():
            raise ResultError(f"{source / name}.txt: attributes are one row of 0 and 1")
        columns = ATTRIBUTES.get(len(flags), tuple(f"A{k + 1}" for k in range(len(flags))))
        named[name] = tuple(c for c, flag in zip(columns, flags, strict=True) if flag > 0)
    return named


def _read_attribute_table(path: Path) -> dict[str, tuple[str, ...]]:
    try:
        table = json.loads(read_text(path))
        columns = table["columns"]
        return {
            name: tuple(c for c, flag in zip(columns, flags, strict=True) if flag > 0)
            for name, flags in table["sequences"].items()
        }
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ResultError(
            f'{path}: expected {{"columns": [...], "sequences": {{SEQ: [0, 1, ...]}}}}'
        ) from error

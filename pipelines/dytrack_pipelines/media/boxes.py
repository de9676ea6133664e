"""First boxes of targets: typed, read from a file, or drawn in a window."""

import json
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2

from dytrack_model.errors import BoxError, ConfigurationError, RuntimeMissingError
from dytrack_model.images import RGB

Boxes = dict[str, tuple[float, ...]]


def parse_box(text: str) -> tuple[float, ...]:
    """Read ``x,y,w,h``.

    Raises:
        BoxError: It is not four numbers.
    """
    try:
        box = tuple(float(part) for part in text.split(","))
    except ValueError:
        box = ()
    if len(box) != 4 or not all(math.isfinite(value) for value in box):
        raise BoxError(f"--init: expected four numbers x,y,w,h in pixels, got {text!r}")
    return box


def typed(texts: Sequence[str]) -> Boxes:
    """Read boxes of the command line; targets are called 1, 2, ...

    Raises:
        BoxError: One is not four numbers.
    """
    return {str(number): parse_box(text) for number, text in enumerate(texts, start=1)}


def read_boxes(path: Path, size: tuple[int, int]) -> Boxes:
    """Read boxes of a file.

    Args:
        path: JSON: a list of ``[x, y, w, h]`` or of objects with ``id`` and ``box`` (or ``bbox``),
            or an object of boxes by name, in pixels. Or ``.txt`` as YOLO writes it: class, centre
            and size in [0, 1] of the frame.
        size: Width and height of the frame.

    Raises:
        BoxError: The file is missing, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BoxError(f"--init-from {path}: cannot be read ({error})") from error
    try:
        found = _yolo(text, size) if path.suffix == ".txt" else _json(json.loads(text))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BoxError(
            f"--init-from {path}: expected a list of boxes x, y, w, h in pixels, of objects with "
            "id and box, boxes by name, or YOLO's text"
        ) from error
    if not found:
        raise BoxError(f"--init-from {path}: holds no box")
    for name in found:  # it becomes a part of files' names
        if not re.fullmatch(r"\w[\w.-]{0,63}", name):
            raise BoxError(
                f"--init-from {path}: a target's name has letters, digits, - . _ only, got {name!r}"
            )
    return found


def _json(values: Any) -> Boxes:  # noqa: ANN401  (whatever a file holds)
    if isinstance(values, dict):
        values = values.get("targets", values)
    if isinstance(values, dict):
        return {str(name): _four(box) for name, box in values.items()}
    found: Boxes = {}
    for number, row in enumerate(values, start=1):
        if isinstance(row, dict):
            name, box = str(row.get("id", number)), row["box"] if "box" in row else row["bbox"]
        else:
            name, box = str(number), row
        if name in found:
            raise ValueError(name)
        found[name] = _four(box)
    return found


def _four(box: Any) -> tuple[float, ...]:  # noqa: ANN401  (whatever a file holds)
    values = tuple(float(value) for value in box)
    if len(values) != 4:
        raise ValueError(box)
    return values


def _yolo(text: str, size: tuple[int, int]) -> Boxes:
    width, height = size
    found: Boxes = {}
    for number, line in enumerate((row for row in text.splitlines() if row.strip()), start=1):
        cx, cy, w, h = (float(value) for value in line.split()[1:5])
        found[str(number)] = ((cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height)
    return found


def require_window(option: str) -> None:
    """Refuse what needs a window where there is none.

    Raises:
        RuntimeMissingError: There is no display, or OpenCV was built without windows.
    """
    shown = (
        sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    windows = "GUI:" in cv2.getBuildInformation() and "NONE" not in next(
        line for line in cv2.getBuildInformation().splitlines() if "GUI:" in line
    )
    if not shown or not windows:
        lacking = "a display" if not shown else "an OpenCV with windows (pip install opencv-python)"
        raise RuntimeMissingError(
            f"{option}: needs {lacking}; dytrack serve draws boxes in a browser instead"
        )


def select(frame: RGB) -> Boxes:
    """Let the user draw boxes on the first frame; Escape ends.

    Raises:
        BoxError: None was drawn.
    """
    title = "draw boxes: Space or Enter takes one, Escape ends"
    drawn = cv2.selectROIs(title, cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2BGR))
    cv2.destroyWindow(title)
    found = {
        str(number): tuple(float(value) for value in box)
        for number, box in enumerate(drawn, start=1)
    }
    if not found:
        raise BoxError("--select: no box was drawn")
    return found


def require_one_way(init: list[str] | None, init_from: Path | None, select: bool) -> None:
    """Refuse none and several ways of giving first boxes.

    Raises:
        ConfigurationError: It names them.
    """
    if sum((bool(init), init_from is not None, select)) != 1:
        raise ConfigurationError(
            "--init: give the targets' first boxes one way: --init x,y,w,h (repeatable), "
            "--init-from FILE, or --select"
        )


def first_boxes(
    init: Sequence[str], init_from: Path | None, first: RGB | None, *, draw: bool = False
) -> Boxes:
    """Return the targets' boxes by name, from wherever they were given.

    Raises:
        BoxError: A box cannot be read.
    """
    if init_from is not None and first is not None:
        return read_boxes(init_from, first.size)
    if draw and first is not None:
        return select(first)
    return typed(init)

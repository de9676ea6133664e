"""YOLO's labels: a folder with a file a frame."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from dytrack_pipelines.media.box_file import BoxFile
from dytrack_pipelines.media.overlay import Mark
from dytrack_platform.errors import ConfigurationError
from dytrack_platform.storage.outputs import MADE_BY

YOLO_MARK = "dytrack.json"
"""File by which a folder of labels is known as ours."""
YOLO_LIST = ".dytrack-files"
"""Names the labels in it that are ours, one a line."""


class YoloFolder(BoxFile):
    """YOLO's labels: a folder with a file a frame, ``class centre size`` in [0, 1] of the frame.

    A file has the name of the frame's, where that is a file of its own, else ``000000.txt`` and on.
    What of a box lies outside the frame is cut off. The class is the target's number from 0; a
    frame in which all are lost has an empty file. A list beside them names every file before it is
    written, so that a later run knows which are ours even where this one is killed.
    """

    def begin(self) -> None:
        """Make the folder, without the labels that an earlier run left there."""
        listed = self.path / YOLO_LIST
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if listed.is_file():
                for name in listed.read_text(encoding="utf-8").splitlines():
                    if name.endswith(".txt") and not re.search(r"[/\\\0]", name):
                        (self.path / name).unlink(missing_ok=True)
            ours = {self._label(frame) for frame in range(len(self.names))}
            strange = [
                old.name
                for old in self.path.glob("*.txt")
                if old.name in ours or old.stem.isdecimal()
            ]
            if strange:
                raise ConfigurationError(
                    f"--yolo {self.path}: holds {min(strange)}, which is not among the labels that "
                    "dytrack noted as its own; name another folder, or move it away"
                )
            listed.write_text("", encoding="utf-8")
            self._tell()
        except OSError as error:
            raise self._refusal(error) from error

    def add(self, marks: Mapping[str, Mark]) -> None:
        """Write a frame's file."""
        rows = []
        for name, mark in marks.items():
            inside = None if mark.lost else _inside(mark.box_xywh.tolist(), *self.frame_size)
            if inside is not None:
                row = " ".join(f"{value:.6f}" for value in inside)
                rows.append(f"{self.targets.index(name)} {row}\n")
        name = self._label(self.frames)
        with (self.path / YOLO_LIST).open("a", encoding="utf-8") as listed:
            listed.write(f"{name}\n")
        (self.path / name).write_text("".join(rows), encoding="utf-8")

    def finish(self) -> None:
        """Say how many frames there are."""
        self._tell()

    def _label(self, frame: int) -> str:
        return f"{Path(self.names[frame]).stem}.txt" if self.names else f"{frame:06d}.txt"

    def _tell(self) -> None:
        about = {"generator": MADE_BY, "source": self.source, "names": self.targets}
        beside = self.path / f".{YOLO_MARK}.unfinished"
        beside.write_text(json.dumps(about | {"frames": self.frames}) + "\n", encoding="utf-8")
        beside.replace(self.path / YOLO_MARK)


def _inside(
    box_xywh: Sequence[float], width: int, height: int
) -> tuple[float, float, float, float] | None:
    """Return the centre and size of what of a box lies in the frame, in [0, 1]; None of nothing."""
    x, y, w, h = box_xywh
    left, right = (min(max(value, 0.0), width) for value in (x, x + w))
    top, bottom = (min(max(value, 0.0), height) for value in (y, y + h))
    if left >= right or top >= bottom:
        return None
    return (
        0.5 * (left + right) / width,
        0.5 * (top + bottom) / height,
        (right - left) / width,
        (bottom - top) / height,
    )

"""YOLO's labels: a folder with a file a frame."""

import json
import re
from collections.abc import Mapping

from dytrack_pipelines.media.box_file import BoxFile
from dytrack_pipelines.media.overlay import Mark
from dytrack_platform.errors import ConfigurationError
from dytrack_platform.storage.outputs import MADE_BY

YOLO_MARK = "dytrack.json"
"""File by which a folder of labels is known as ours."""
YOLO_LIST = ".dytrack-files"
"""Names the labels in it that are ours, one a line."""


class YoloFolder(BoxFile):
    """YOLO's labels: a folder with ``000000.txt`` a frame, ``class centre size`` in [0, 1].

    The class is the target's number from 0; a frame in which all are lost has an empty file. A list
    beside them names every file before it is written, so that a later run knows which are ours even
    where this one is killed.
    """

    def begin(self) -> None:
        """Make the folder, without the labels that an earlier run left there."""
        listed = self.path / YOLO_LIST
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if listed.is_file():
                for name in listed.read_text(encoding="utf-8").splitlines():
                    if re.fullmatch(r"\d{6,}\.txt", name):
                        (self.path / name).unlink(missing_ok=True)
            strange = [old.name for old in self.path.glob("*.txt") if old.stem.isdecimal()]
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
            if not mark.lost:
                x, y, w, h = (float(value) for value in mark.box_xywh)
                width, height = self.size
                parts = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
                row = " ".join(f"{value:.6f}" for value in parts)
                rows.append(f"{self.targets.index(name)} {row}\n")
        name = f"{self.frames:06d}.txt"
        with (self.path / YOLO_LIST).open("a", encoding="utf-8") as listed:
            listed.write(f"{name}\n")
        (self.path / name).write_text("".join(rows), encoding="utf-8")

    def finish(self) -> None:
        """Say how many frames there are."""
        self._tell()

    def _tell(self) -> None:
        about = {"generator": MADE_BY, "source": self.source, "names": self.targets}
        beside = self.path / f".{YOLO_MARK}.unfinished"
        beside.write_text(json.dumps(about | {"frames": self.frames}) + "\n", encoding="utf-8")
        beside.replace(self.path / YOLO_MARK)

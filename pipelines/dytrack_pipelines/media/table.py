"""The table of boxes: one row a frame, written as the frames come."""

import csv
import os
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from dytrack_pipelines.media.overlay import Mark
from dytrack_platform.errors import StorageError

COLUMNS = ("frame", "x", "y", "w", "h", "exit", "predicted_iou", "lost", "state")
_FLUSH_EVERY = 64
"""Rows between two writes to the disk: what a crash of the machine can cost."""


class BoxTable:
    """Writes rows beside the table's place, and renames them there when the body ends.

    The rows so far become the table however the body of the ``with`` ends: minutes of tracking are
    not lost to what came after them. With the path ``None`` it writes nothing.

    Raises:
        StorageError: The folder cannot be written; told before the first row.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self.rows = 0
        """Rows so far."""
        if path is None:
            return
        self._beside = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._beside.open("w", newline="", encoding="utf-8")
        except OSError as error:
            raise self._refusal(error) from error
        self._writer = csv.writer(self._file)
        self._writer.writerow(COLUMNS)

    def write(self, mark: Mark) -> None:
        """Add the next frame's row.

        Raises:
            StorageError: There is no space.
        """
        if self._file is None:
            return
        box = [f"{value:.4f}" for value in mark.box_xywh]
        score = f"{mark.predicted_iou:.4f}"
        try:
            self._writer.writerow([self.rows, *box, mark.depth, score, int(mark.lost), mark.state])
            self.rows += 1
            if self.rows % _FLUSH_EVERY == 0:
                self._file.flush()
        except OSError as error:
            raise self._refusal(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is None or self._path is None:
            return
        try:
            self._file.close()
            self._beside.replace(self._path)
        except OSError as fault:
            self._beside.unlink(missing_ok=True)
            self.rows = 0
            if kind is None:
                raise self._refusal(fault) from fault

    def _refusal(self, error: OSError) -> StorageError:
        return StorageError(
            f"{self._path}: cannot be written ({error.strerror}): free space or choose another "
            "folder"
        )

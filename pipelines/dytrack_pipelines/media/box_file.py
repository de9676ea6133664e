"""A file of boxes that is written beside its place: what all formats share."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from dytrack_pipelines.media.outputs import STANDARD_OUTPUT
from dytrack_pipelines.media.overlay import Mark
from dytrack_platform.errors import StorageError
from dytrack_platform.storage.atomic import beside

_FLUSH_EVERY = 64
"""Frames between two writes to the disk: what a crash of the machine can cost."""


class BoxFile:
    """One file of boxes.

    Args:
        path: The file, or :data:`STANDARD_OUTPUT` for formats of which a frame is a line.
        targets: Names of the targets.
        size: Width and height of the frames.
        source: What is tracked in, for formats that say so.
        names: File names of the frames, where each is a file of its own.

    Raises:
        StorageError: The folder cannot be written; told before the first frame.
    """

    def __init__(
        self,
        path: Path,
        targets: Sequence[str],
        size: tuple[int, int],
        source: str,
        names: Sequence[str] = (),
    ) -> None:
        self.path, self.targets, self.size, self.source = path, list(targets), size, source
        self.names = names
        self.frame_size = size
        """Of the newest frame; some sequences change."""
        self.streams = path == STANDARD_OUTPUT
        self.frames = 0
        """Frames so far."""
        self._open: dict[str, tuple[Path, IO[str]]] = {}
        try:
            self.begin()
        except BaseException:
            self.discard()
            raise

    def begin(self) -> None:
        """Open what is written to."""

    def add(self, marks: Mapping[str, Mark]) -> None:
        """Write the next frame."""
        raise NotImplementedError

    def finish(self) -> None:
        """Put everything in its place."""
        for name in list(self._open):
            self._place(name, self.path)

    def write(self, marks: Mapping[str, Mark], size: tuple[int, int]) -> None:
        """Add the next frame's boxes, by target.

        Args:
            marks: The boxes.
            size: Width and height of the frame.

        Raises:
            StorageError: There is no space.
            BrokenPipeError: Nobody reads standard output any longer.
        """
        self.frame_size = size
        try:
            self.add(marks)
            self.frames += 1
            if self.streams:
                sys.stdout.flush()
            elif self.frames % _FLUSH_EVERY == 0:
                for _, file in self._open.values():
                    file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._refusal(error) from error

    def part(self, name: str = "") -> IO[str]:
        """Open a file beside the result's place; standard output is open already."""
        if self.streams:
            return sys.stdout
        place = self.path.with_name(f"{self.path.name}.{name}") if name else self.path
        part = beside(place)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = part.open("w+", newline="", encoding="utf-8")
        except OSError as error:
            raise self._refusal(error) from error
        self._open[name] = (part, file)
        return file

    def _place(self, name: str, path: Path) -> None:
        # Closing writes what is left: on a full disk it fails, and the part is there to be dropped.
        part, file = self._open[name]
        file.close()
        part.replace(path)
        del self._open[name]

    def _drop(self, name: str) -> None:
        part, file = self._open.pop(name)
        try:
            file.close()
        finally:
            part.unlink(missing_ok=True)

    def discard(self) -> None:
        """Leave nothing behind."""
        for name in list(self._open):
            with suppress(OSError):
                self._drop(name)

    def close(self) -> None:
        """Put everything in its place.

        Raises:
            StorageError: It cannot be written; nothing unfinished is left.
        """
        if self.streams:
            return
        try:
            self.finish()
        except OSError as error:
            self.discard()
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> StorageError:
        return StorageError(
            f"{self.path}: cannot be written ({error.strerror}): free space or choose another "
            "folder"
        )

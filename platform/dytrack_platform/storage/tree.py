"""A folder of a dataset: a local path, or any URL that pyarrow or fsspec opens.

Everything that reads a source or a prepared folder goes through :class:`Tree`, so that
``s3://bucket/LaSOT`` works wherever ``/data/LaSOT`` does. Paths inside it use ``/`` and never
leave it. Options of a store stand behind a question mark, as pyarrow takes them:
``s3://bucket/LaSOT?endpoint_override=localhost:9000&scheme=http``. They travel with the root to
every worker; keys stay in the environment or in files of the machine.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dytrack_platform.errors import DataError, StorageError
from dytrack_platform.storage.atomic import LEFTOVER_SUFFIX, replacing
from dytrack_platform.storage.filesystem import local_path, remote, split_options

_LEFTOVER_AGE_S = 600.0


@dataclass(frozen=True, slots=True)
class Tree:
    """A folder by local path or URL. Cheap to copy to another process."""

    root: str

    @property
    def local(self) -> Path | None:
        """The folder on this machine, or None where the root is remote."""
        local = local_path(self.root)
        return None if local is None else Path(local)

    def __truediv__(self, name: str) -> "Tree":
        return Tree(self.path(name))

    def path(self, inside: str = "") -> str:
        """Return the path or URL of something inside, for messages and for opening.

        Raises:
            DataError: ``inside`` points out of the folder.
        """
        if "\0" in inside:
            raise DataError(f"{self.root}: {inside!r} is no name of a file")
        if not _stays_inside(inside):
            raise DataError(f"{self.root}: {inside!r} points outside of the folder")
        local = local_path(self.root)
        if local is not None:
            return f"{local}/{inside}" if inside else local
        base, options = split_options(self.root)
        base = base.rstrip("/")
        return f"{base}/{inside}{options}" if inside else f"{base}{options}"

    def names(self, folder: str = "") -> list[str]:
        """List a folder's entries by name, sorted; hidden ones are left out.

        Raises:
            DataError: There is no such folder.
        """
        path = self.path(folder)
        try:
            if self.local is not None:
                found = os.listdir(path)  # noqa: PTH208  (a million names: no Path for each)
            else:
                system, inside = remote(path)
                found = [str(p).rstrip("/").rsplit("/", 1)[-1] for p in system.ls(inside, False)]
        except OSError as error:
            raise DataError(f"{path}: no such folder ({error.strerror or error})") from error
        return sorted(name for name in found if not name.startswith("."))

    def is_file(self, inside: str) -> bool:
        """Tell whether a file of this name is there; nothing outside of the folder is."""
        if not _stays_inside(inside):
            return False
        path = self.path(inside)
        if self.local is not None:
            return os.path.isfile(path)  # noqa: PTH113  (a Path raises where a name is too long)
        system, at = remote(path)
        return bool(system.isfile(at))

    def is_folder(self, inside: str = "") -> bool:
        """Tell whether a folder of this name is there; nothing outside of the folder is."""
        if not _stays_inside(inside):
            return False
        path = self.path(inside)
        if self.local is not None:
            return os.path.isdir(path)  # noqa: PTH112  (a Path raises where a name is too long)
        system, at = remote(path)
        return bool(system.isdir(at))

    def open(self, inside: str) -> BinaryIO:
        """Open a file for reading, with seeking.

        Raises:
            DataError: The file is missing or cannot be read.
        """
        path = self.path(inside)
        try:
            if self.local is not None:
                return open(path, "rb")  # noqa: PTH123  (once a frame: no Path for each)
            system, at = remote(path)
            opened: BinaryIO = system.open(at, "rb")
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
        return opened

    def read_bytes(self, inside: str) -> bytes:
        """Read a whole file.

        Raises:
            DataError: The file is missing or cannot be read.
        """
        with self.open(inside) as file:
            try:
                return file.read()
            except OSError as error:
                raise DataError(f"{self.path(inside)}: cannot be read ({error})") from error

    def read_text(self, inside: str) -> str:
        """Read a text file; a byte order mark is dropped, stray bytes become U+FFFD.

        Raises:
            DataError: The file is missing or cannot be read.
        """
        return self.read_bytes(inside).decode("utf-8-sig", errors="replace")

    def write_bytes(self, inside: str, content: bytes | memoryview) -> None:
        """Write a whole file: it is there complete or not at all.

        Raises:
            StorageError: The disk is full or the folder cannot be written.
        """
        path = self.path(inside)
        try:
            if self.local is not None:
                with replacing(Path(path)) as beside:
                    beside.write_bytes(content)
            else:
                system, at = remote(path)
                system.makedirs(at.rsplit("/", 1)[0], exist_ok=True)
                # One upload: object stores show it at its end.
                system.pipe_file(at, bytes(content))
        except OSError as error:
            cure = "free some space" if self.local is not None else "look whether the store answers"
            raise StorageError(
                f"{path}: cannot be written ({error.strerror or error}); {cure}, or name another "
                "folder"
            ) from error

    def remove(self, inside: str) -> None:
        """Remove a file; one that is already gone is no fault."""
        path = self.path(inside)
        if self.local is not None:
            Path(path).unlink(missing_ok=True)
        elif self.is_file(inside):
            system, at = remote(path)
            system.rm_file(at)

    def remove_leftovers(self) -> None:
        """Remove what a killed writer left unfinished; a running writer's file is younger."""
        if self.local is None:
            return
        for path in self.local.glob(f".*{LEFTOVER_SUFFIX}"):
            try:
                if time.time() - path.stat().st_mtime > _LEFTOVER_AGE_S:
                    path.unlink()
            except FileNotFoundError:
                continue  # its writer has just finished


def _stays_inside(inside: str) -> bool:
    return ".." not in inside.split("/") and not inside.startswith("/") and "\0" not in inside

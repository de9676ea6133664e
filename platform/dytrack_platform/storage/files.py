"""Small JSON files and folders on any storage: a local path, NFS, or an object store's URL."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dytrack_platform.errors import StorageError
from dytrack_platform.storage.filesystem import local_path, remote

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


def absolute(location: str) -> str:
    """Return a local path as an absolute one; a URL stays as it is."""
    return location if "://" in location else str(Path(location).expanduser().absolute())


def read_json(location: str) -> dict[str, Any] | None:
    """Read a JSON file; ``None`` where there is none.

    Raises:
        StorageError: The file is there but cannot be read, or is not JSON.
    """
    try:
        filesystem, path = _opened(location)
        with filesystem.open(path, "r") as file:
            content: dict[str, Any] = json.load(file)
            return content
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StorageError(f"{location}: cannot be read: {error}") from error


def write_json(location: str, content: dict[str, Any]) -> None:
    """Write a JSON file; a reader sees the old one or the new one, never a part.

    Raises:
        StorageError: There is no space or no permission.
    """
    write_bytes(location, (json.dumps(content, indent=2) + "\n").encode())


def folders(location: str, prefix: str) -> list[str]:
    """List the folders below ``location`` whose names start with ``prefix``, last name first."""
    filesystem, path = _opened(location)
    if not filesystem.isdir(path):
        return []
    names = sorted(
        entry["name"].rstrip("/").rpartition("/")[2]
        for entry in filesystem.ls(path, detail=True)
        if entry["type"] == "directory"
    )
    return [f"{location}/{name}" for name in reversed(names) if name.startswith(prefix)]


def copy_folder(source: str, target: str) -> str:
    """Copy a folder beside its target and rename it there; returns ``target``.

    Raises:
        StorageError: There is no space or no permission.
    """
    filesystem, path = _opened(target)
    _, origin = _opened(source)
    beside = path + ".part"
    try:
        for stale in (beside, path):
            if filesystem.exists(stale):
                filesystem.rm(stale, recursive=True)
        filesystem.copy(origin + "/", beside + "/", recursive=True)
        filesystem.mv(beside, path, recursive=True)
    except OSError as error:
        raise StorageError(f"{target}: cannot be written: {error}") from error
    return target


def put_folder(source: Path, target: str) -> str:
    """Copy a local folder beside its target on any storage, and rename it; returns ``target``.

    Raises:
        StorageError: There is no space or no permission.
    """
    filesystem, path = _opened(target)
    beside = f"{path}.{uuid4().hex[:8]}.part"
    try:
        filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
        filesystem.put(f"{source}/", beside + "/", recursive=True)
        if filesystem.exists(path):
            filesystem.rm(path, recursive=True)
        filesystem.mv(beside, path, recursive=True)
    except OSError as error:
        raise StorageError(f"{target}: cannot be written: {error}") from error
    return target


def exists(location: str) -> bool:
    """Say whether a file or a folder is there."""
    filesystem, path = _opened(location)
    return bool(filesystem.exists(path))


def remove_folder(location: str) -> None:
    """Remove a folder with all that is in it; one that is already gone is no fault."""
    filesystem, path = _opened(location)
    if filesystem.exists(path):
        filesystem.rm(path, recursive=True)


@contextmanager
def local_copy(location: str) -> Iterator[Path]:
    """Yield a folder as a local one while the body runs, downloading it where it is remote."""
    if "://" not in location:
        yield Path(location)
        return
    filesystem, path = _opened(location)
    with TemporaryDirectory(prefix="dytrack-") as name:
        filesystem.get(path + "/", name + "/", recursive=True)
        yield Path(name)


def write_bytes(location: str, content: bytes) -> str:
    """Write a whole file beside and rename it; returns ``location``.

    Raises:
        StorageError: There is no space or no permission.
    """
    filesystem, path = _opened(location)
    beside = path + ".part"
    try:
        filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
        with filesystem.open(beside, "wb") as file:
            file.write(content)
        filesystem.mv(beside, path)
    except OSError as error:
        raise StorageError(f"{location}: cannot be written: {error}") from error
    return location


def remove(location: str) -> None:
    """Remove a file; one that is already gone is no fault."""
    filesystem, path = _opened(location)
    try:
        filesystem.rm_file(path)
    except FileNotFoundError:
        return


def _opened(location: str) -> tuple["AbstractFileSystem", str]:
    local = local_path(location)
    if local is None:
        return remote(location)
    from fsspec.implementations.local import LocalFileSystem

    return LocalFileSystem(), str(Path(local).absolute())

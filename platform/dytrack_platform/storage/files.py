"""Small JSON files and folders on any storage: a local path, NFS, or an object store's URL."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from dytrack_model.folders import write_folder
from dytrack_platform.errors import StorageError
from dytrack_platform.storage.filesystem import local_path, remote
from dytrack_platform.storage.tree import Tree

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
    """Copy the files of a folder over those of another; returns ``target``.

    On this machine each file is replaced by renaming. An object store cannot rename: there the
    files go up one by one, each whole or not at all, in the order of their names.

    Raises:
        StorageError: There is no space or no permission.
    """
    place, origin = local_path(target), local_path(source)
    try:
        if place is not None and origin is not None:
            write_folder(Path(place), lambda beside: _copy_files(Path(origin), beside))
            return target
        here, path = _opened(target)
        there, old = _opened(source)
        for name in sorted(there.find(old)):
            inside = name.removeprefix(old.rstrip("/")).lstrip("/")
            here.makedirs(path, exist_ok=True)
            here.pipe_file(f"{path.rstrip('/')}/{inside}", there.cat_file(name))
    except OSError as error:
        raise StorageError(f"{target}: cannot be written: {error}") from error
    return target


def put_folder(source: Path, target: str, last: str = "") -> str:
    """Write the files of a local folder, and of those in it, over those of a target.

    Args:
        source: The local folder.
        target: A folder on any storage.
        last: Name of the file that is written after all others: the one that seals them.

    Returns:
        The target.

    Raises:
        StorageError: There is no space or no permission.
    """
    found = [path for path in source.rglob("*") if path.is_file()]
    for path in sorted(found, key=lambda one: (one.name == last, str(one))):
        write_bytes(f"{target}/{path.relative_to(source)}", path.read_bytes())
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


def _copy_files(origin: Path, beside: Path) -> None:
    for file in sorted(path for path in origin.iterdir() if path.is_file()):
        shutil.copyfile(file, beside / file.name)


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
    """Write a whole file; returns ``location``.

    On this machine it is written beside its place and renamed; an object store shows a file at the
    end of its upload.

    Raises:
        StorageError: There is no space or no permission.
        DataError: The store refuses the keys.
    """
    folder, _, name = location.rpartition("/")
    Tree(folder).write_bytes(name, content)
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

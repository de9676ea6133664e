"""What travels with a job: the three packages, and the files that its command names."""

import hashlib
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dytrack_platform.errors import ConfigurationError

_CARRIED = (".yaml", ".yml", ".json")
"""Files of a command that travel: recipes and lists of boxes. Data and weights lie in storage."""
_LARGEST = 10 * 2**20
"""Bytes of such a file."""
_LARGEST_PACKAGE = 500 * 2**20
"""Ray's limit for a package."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shipment:
    """A command as the job runs it, and what goes with it."""

    words: tuple[str, ...]
    """The command after ``dytrack``; files are named as they lie in the job's folder."""
    files: tuple[Path, ...]
    """Where they came from."""
    left: tuple[Path, ...]
    """Files that the command names and that stay here: the nodes have to have them."""
    packages: tuple[Path, ...]
    """Folders of the three packages."""
    size_bytes: int
    digest: str
    """Of the command and the content of its files: what tells two jobs apart."""

    @property
    def entrypoint(self) -> str:
        """The job's command line: the Jobs API takes one string, so every word is quoted."""
        return shlex.join(["python", "-m", "dytrack_pipelines.cli", *self.words])

    def sentence(self) -> str:
        """Say what travels."""
        named = f" and {', '.join(str(file) for file in self.files)}" if self.files else ""
        said = f"{len(self.packages)} packages{named} travel, {self.size_bytes / 1e6:.1f} MB in all"
        if self.left:
            said += (
                f"; {', '.join(str(file) for file in self.left)} does not: the job opens it at "
                "this path on its node"
            )
        return said


def pack(command: Sequence[str], packages: Sequence[str], folder: Path) -> Shipment:
    """Copy the files that a command names into the job's folder.

    Args:
        command: Words after ``dytrack``; a file may be a word, or stand behind ``--option=``.
        packages: Folders of the packages.
        folder: The job's folder; empty.

    Raises:
        ConfigurationError: The command names what is here only and does not travel.
    """
    words: list[str] = []
    files: list[Path] = []
    left: list[Path] = []
    digest = hashlib.sha256()
    for word in command:
        option, equals, value = word.partition("=")
        path = Path(value if equals and option.startswith("-") else word)
        if not _travels(path):
            if _is_file_of_this_machine(path):
                left.append(path)
            words.append(word)
            digest.update(word.encode() + b"\0")
            continue
        content = path.read_bytes()
        # Two files of one name stay two: the number is part of the name.
        name = f"{len(files)}-{path.name}"
        shutil.copyfile(path, folder / name)
        words.append(f"{option}={name}" if equals and option.startswith("-") else name)
        files.append(path)
        digest.update(hashlib.sha256(content).digest())
    folders = tuple(Path(package) for package in packages)
    sizes = {package: _size(package) for package in folders}
    for package, size in sizes.items():
        if size > _LARGEST_PACKAGE:
            raise ConfigurationError(
                f"{package}: {size / 2**20:.0f} MiB, and Ray takes a package of at most "
                f"{_LARGEST_PACKAGE / 2**20:.0f} MiB; move what is no code out of it"
            )
    return Shipment(
        words=tuple(words),
        files=tuple(files),
        left=tuple(left),
        packages=folders,
        size_bytes=sum(sizes.values()) + sum(path.stat().st_size for path in files),
        digest=digest.hexdigest()[:12],
    )


def _travels(path: Path) -> bool:
    return path.suffix in _CARRIED and path.is_file() and path.stat().st_size <= _LARGEST


def _is_file_of_this_machine(path: Path) -> bool:
    """Say whether a word names a file; a folder's name may be any word, unless it has a slash.

    Raises:
        ConfigurationError: It has a relative path, which leads nowhere in the job's folder.
    """
    there = path.is_file() or (len(path.parts) > 1 and path.is_dir())
    if there and not path.is_absolute() and (path.suffix or len(path.parts) > 1):
        raise ConfigurationError(
            f"{path}: lies on this machine and does not travel (files of {', '.join(_CARRIED)} up "
            f"to {_LARGEST / 2**20:.0f} MiB do); name an absolute path that the nodes share, or a "
            "URL such as s3://bucket/file"
        )
    return there and path.is_absolute()


def _size(package: Path) -> int:
    files = (path for path in package.rglob("*") if "__pycache__" not in path.parts)
    return sum(path.stat().st_size for path in files if path.is_file())

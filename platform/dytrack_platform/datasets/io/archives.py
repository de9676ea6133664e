"""Frames inside of a zip archive, read member by member; nothing is ever unpacked to disk."""

import lzma
import zipfile
import zlib
from functools import lru_cache

from dytrack_platform.datasets.io.frames import (
    IMAGE_SUFFIXES,
    SeparateFrames,
    decode,
    in_number_order,
)
from dytrack_platform.datasets.sequence import Pixels
from dytrack_platform.errors import DataError
from dytrack_platform.storage.tree import Tree

_LARGEST_MEMBER = 64 * 2**20
"""Bytes of an unpacked member; an archive can claim any number."""


_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    ValueError,
    RuntimeError,  # a password; NotImplementedError, a method that Python does not know
)
"""What Python's module raises for members that cannot be unpacked."""


class ZipFrames(SeparateFrames):
    """Images at the root of a zip archive, in the order of their numbers from 0."""

    def __init__(self, tree: Tree, archive: str, members: tuple[str, ...]) -> None:
        self._tree = tree
        self._archive = archive
        self._members = members

    @classmethod
    def open(cls, tree: Tree, archive: str) -> "ZipFrames":
        """List an archive's images.

        Raises:
            DataError: It is missing, damaged, holds no image, or has a member that points
                outside of its folder.
        """
        members = []
        for name in _opened(tree, archive).namelist():
            if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
                raise DataError(
                    f"{tree.path(archive)}: its member {name!r} points outside of its folder; "
                    "the archive is refused"
                )
            if "/" not in name and name.lower().endswith(IMAGE_SUFFIXES):
                members.append(name)
        if not members:
            raise DataError(f"{tree.path(archive)}: holds no image at its root")
        return cls(tree, archive, tuple(in_number_order(members, 0)))

    def __len__(self) -> int:
        return len(self._members)

    def path(self, index: int) -> str:
        """Name the archive and the member of a frame."""
        return f"{self._tree.path(self._archive)}!{self._members[index]}"

    def read(self, index: int) -> Pixels:
        """Decode one frame to (H, W, 3) uint8, red first.

        Raises:
            DataError: The archive or the member is damaged or too large.
        """
        return decode(self._encoded(index), self.path(index), lambda: self._encoded(0))

    def _encoded(self, index: int) -> bytes:
        archive = _opened(self._tree, self._archive)
        try:
            member = archive.getinfo(self._members[index])
        except KeyError as error:
            raise DataError(f"{self.path(index)}: is missing from the archive") from error
        if member.file_size > _LARGEST_MEMBER:
            raise DataError(f"{self.path(index)}: would unpack to {member.file_size:,} bytes")
        try:
            return archive.read(member)
        except _DAMAGE as error:
            raise DataError(f"{self.path(index)}: cannot be read ({error})") from error


@lru_cache(maxsize=4)
def _opened(tree: Tree, archive: str) -> zipfile.ZipFile:
    try:
        # By name where that is possible: then the archive closes its file when it is forgotten.
        return zipfile.ZipFile(tree.open(archive) if tree.local is None else tree.path(archive))
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DataError(f"{tree.path(archive)}: is not a whole zip archive ({error})") from error

"""Where a command may write a file: never over what dytrack did not write itself.

Every file that a command writes says so somewhere at its start or end, in a way that its format
ignores; a command that is run again replaces such a file. Anything else at that place is
somebody's, and the command ends before it starts.
"""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from dytrack_platform.errors import ConfigurationError
from dytrack_platform.storage.job import require_kept

MADE_BY = "dytrack"
"""Value of ``generator`` in the JSON files, and of the ``meta`` element in the pages."""
VIDEO_MARK = b"written by dytrack"
"""Stands in an empty section at the end of a video."""
TABLE_HEADERS = ("frame,x,y,w,h,exit,predicted_iou",)
"""How the tables of boxes begin."""
_RECORDING = b"RRF"
"""How a recording of Rerun begins; the program that made it follows."""
_HEAD, _TAIL = 4096, 64
_SIGNS = re.compile(rb'"generator": "dytrack|name="generator" content="dytrack|Software\x00dytrack')


def check_outputs(
    outputs: Mapping[str, Path | str | None], inputs: Iterable[Path | str | None] = ()
) -> None:
    """Refuse outputs that would destroy something; meant to run before any work.

    Args:
        outputs: Files to write, by the option that named them; None and URLs are passed over.
        inputs: Files and folders that are read.

    Raises:
        ConfigurationError: An output is a folder, a link or a device, lies below a file, is one of
            the inputs or another output, or a file is there that dytrack did not write.
    """
    read = [Path(path) for path in inputs if path is not None and "://" not in str(path)]
    written: dict[Path, str] = {}
    for option, given in outputs.items():
        if given is None or "://" in str(given):
            continue
        path = Path(given)
        require_kept(option, path)
        _refuse_strange(option, path)
        place = path.resolve()
        if place in written:
            raise ConfigurationError(
                f"{option} {path}: is also what {written[place]} names; give each a file of its own"
            )
        written[place] = option
        for source in read:
            if _same(place, source):
                raise ConfigurationError(
                    f"{option} {path}: is what is read; name another file, it would be replaced"
                )
        # The resolved one: "new/../thesis" is not there before "new" is made, and is the thesis.
        if place.exists() and not is_ours(place):
            raise ConfigurationError(
                f"{option} {path}: is there, and dytrack did not write it; move it away, or name "
                "another file"
            )


def check_folder(
    option: str, folder: Path | str, names: Iterable[str], marks: Iterable[str]
) -> None:
    """Refuse to write into a folder whose files of the same names are somebody else's.

    Args:
        option: What named the folder.
        folder: The folder; it need not exist. URLs are passed over.
        names: Files and folders that would be written in it.
        marks: Files that show, by :func:`is_ours`, that dytrack wrote there before.

    Raises:
        ConfigurationError: It is a file, or holds a thing of such a name and none of the marks.
    """
    if "://" in str(folder):
        return
    folder = Path(folder)
    require_kept(option, folder)
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"{option} {folder}: is a file; name a folder")
    _refuse_below_file(option, folder)
    if any(is_ours(folder / mark) for mark in marks):
        return
    there = sorted(name for name in names if os.path.lexists(folder / name))
    if there:
        raise ConfigurationError(
            f"{option} {folder}: holds {there[0]}, and dytrack did not write it; name another "
            "folder"
        )


def is_ours(path: Path) -> bool:
    """Tell whether dytrack wrote a file, by what it says itself; an empty one is nobody's loss."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(_HEAD)
            file.seek(-min(_TAIL, file.seek(0, os.SEEK_END)), os.SEEK_END)
            tail = file.read()
    except OSError:
        return False
    return (
        not head
        or _SIGNS.search(head) is not None
        or VIDEO_MARK in tail
        or (head.startswith(_RECORDING) and MADE_BY.encode() in head)
        or any(head.startswith(header.encode()) for header in TABLE_HEADERS)
    )


def _refuse_strange(option: str, path: Path) -> None:
    place = path.resolve()
    if place.is_dir():
        raise ConfigurationError(f"{option} {path}: is a folder; name a file")
    if path.is_symlink():
        raise ConfigurationError(
            f"{option} {path}: is a link to {path.readlink()}; name the file itself"
        )
    if place.exists() and not place.is_file():
        raise ConfigurationError(f"{option} {path}: is a device or a pipe; name a file")
    _refuse_below_file(option, path)


def _refuse_below_file(option: str, path: Path) -> None:
    for parent in path.absolute().parents:
        if parent.exists():
            if not parent.is_dir():
                raise ConfigurationError(f"{option} {path}: {parent} is a file, not a folder")
            return


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)  # also through links, hard ones too
    except OSError:
        return one.resolve() == other.resolve()

"""The one atomic write: a reader sees the old file or the new one, never a part."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dytrack_platform.errors import StorageError

LEFTOVER_SUFFIX = ".unfinished"
"""Ending of the hidden files that a killed writer leaves behind."""


@contextmanager
def replacing(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Yield a file beside ``path`` to write to; it takes that place when the body ends well.

    Several processes may write the same file: the last one that finishes counts.

    Args:
        path: The file's place.
        mode: Who may read it there.

    Raises:
        OSError: There is no space or no permission.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, because a file cannot be renamed from one file system to another.
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}.", suffix=LEFTOVER_SUFFIX
    )
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        beside.chmod(mode)  # mkstemp's files are for their owner alone
        beside.replace(path)
    except BaseException:
        with suppress(OSError):  # the first error is the one to tell
            beside.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, text: str) -> None:
    """Write a text file whole.

    Raises:
        StorageError: The folder cannot be written.
    """
    try:
        with replacing(path) as beside:
            beside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}") from error

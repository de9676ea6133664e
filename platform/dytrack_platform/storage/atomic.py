"""The one atomic write: a reader sees the old file or the new one, never a part."""

import os
import socket
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


def beside(path: Path, ending: str = "") -> Path:
    """Return a hidden name beside ``path`` for a file that grows for long, like a video.

    Two processes that write the same path have a name each. What a killed process of this host
    left under such a name is removed; the files of living ones and of other hosts stay.

    Args:
        path: The file's place.
        ending: What the name must end in, for writers that choose a format by it.
    """
    host = socket.gethostname()
    start, end = f".{path.name}.{host}.", f"{LEFTOVER_SUFFIX}{ending}"
    with suppress(OSError):
        for left in path.parent.iterdir():
            process = left.name.removeprefix(start).removesuffix(end)
            if left.name == f"{start}{process}{end}" and process.isdigit() and not _lives(process):
                left.unlink(missing_ok=True)
    return path.with_name(f"{start}{os.getpid()}{end}")


def _lives(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it belongs to somebody else
        return True
    return True


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

"""One command at a time works on a run: a lock on the run's folder."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dytrack_platform.errors import StorageError

_LOCK = "journal.lock"


@contextmanager
def run_lock(folder: Path, wait_s: float = 20.0, name: str = _LOCK) -> Iterator[int | None]:
    """Hold the lock of a run's folder while the body runs; the kernel frees it if the holder dies.

    Yields the process that held it last, or None where nobody did.

    Raises:
        StorageError: Another command holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_s
    with (folder / name).open("a+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    file.seek(0)
                    raise StorageError(
                        f"{folder}: process {file.read().strip() or 'unknown'} is at work on this "
                        "run; wait for it, or choose another name"
                    ) from None
                time.sleep(0.2)
        file.seek(0)
        before = file.read().strip()
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield int(before) if before.isdecimal() else None

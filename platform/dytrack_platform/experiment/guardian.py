"""Sees to it that a run whose command is killed does not stay "running" in MLflow.

A command that records a run starts this module as a process of its own and keeps its standard
input open. When the command is killed, even with SIGKILL, that pipe closes without the word that
all is well; then this process notes the end in the run's journal and delivers what is left of it.
It imports nothing heavy until then.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dytrack_platform.errors import StorageError

_LOCK = "journal.lock"
_WELL = b"well"
_TRIES_S = 120.0


@contextmanager
def owned(folder: Path, wait_s: float = 20.0) -> Iterator[None]:
    """Own a run's folder while the body runs; the kernel lets go of it when the owner dies.

    Raises:
        StorageError: Another command owns it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_s
    with (folder / _LOCK).open("a+") as file:
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
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def watched(folder: Path, run_id: str) -> Iterator[None]:
    """Have this process watched while the body runs."""
    guardian = subprocess.Popen(
        [sys.executable, "-m", __name__, str(folder), run_id],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # what is killed with this command's group is not its guardian
    )
    assert guardian.stdin is not None  # a pipe, as asked for
    try:
        yield
    finally:
        # Whatever happens from here on, the run's end is in the journal already.
        try:
            guardian.communicate(_WELL, timeout=10)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            guardian.kill()
            guardian.wait()


def main(folder: str, run_id: str) -> None:
    """Wait for the command's end, and record it where the command could not."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.stdin.buffer.read() == _WELL:
        return
    from dytrack_platform.experiment.record import end_killed

    deadline = time.monotonic() + _TRIES_S
    with owned(Path(folder), wait_s=0.0):
        while not end_killed(Path(folder), run_id) and time.monotonic() < deadline:
            time.sleep(5.0)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The watchdog: a run whose command is killed does not stay "running" in MLflow.

A command that records a run starts this module as a process of its own and keeps its standard
input open. When the command is killed, even with SIGKILL, that pipe closes without the word that
all is well; then this process notes the end in the run's journal and delivers what is left of it.
It imports nothing heavy until then, and it is nobody's child: Ray, which stops a job by killing its
command with all children, and theirs, does not find it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dytrack_platform.errors import StorageError
from dytrack_platform.experiment.runs.journal import Journal
from dytrack_platform.storage.run_lock import run_lock

_WELL = b"well"
_TRIES_S = 120.0
_LOCK_S = 10.0
_ORPHANED = ("/bin/sh", "-c", '{ "$@" <&3 3<&- & } 3<&0', "sh")
"""Starts the words behind it with the same standard input, and leaves them to init."""


@contextmanager
def watched(folder: Path, run_id: str) -> Iterator[None]:
    """Have this process watched while the body runs."""
    process = subprocess.Popen(
        [*_ORPHANED, sys.executable, "-m", __name__, str(folder), run_id, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # What is killed with this command's process group must not end its watchdog.
        start_new_session=True,
    )
    assert process.stdin is not None  # a pipe, as asked for
    process.wait()
    try:
        yield
    finally:
        # Whatever happens from here on, the run's end is in the journal already.
        with suppress(BrokenPipeError):
            process.stdin.write(_WELL)
        with suppress(BrokenPipeError):
            process.stdin.close()


def end_killed(folder: Path, run_id: str) -> bool:
    """Note that the command was killed, once, and deliver; returns whether all went out."""
    from dytrack_platform.experiment.runs import tracking  # MLflow: seconds, and only needed now

    journal = Journal(folder, lambda entries: tracking.deliver(run_id, folder, entries))
    marker = folder / "journal.killed"
    if not marker.exists():
        journal.tags({"failure": "the command was killed"})
        journal.end("KILLED")
        marker.touch()
    try:
        journal.deliver_all()
    except StorageError:
        return False
    marker.unlink()
    return True


def main(folder: str, run_id: str, command: str) -> None:
    """Wait for the end of the process ``command``, and record it where it could not."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.stdin.buffer.read() == _WELL:
        return
    deadline = time.monotonic() + _TRIES_S
    # The kernel may close the dying command's pipe before it frees its lock: that is waited for.
    with run_lock(Path(folder), wait_s=_LOCK_S) as holder:
        if holder != int(command):
            return  # the same run was begun once more meanwhile: its end is not this one's to tell
        while not end_killed(Path(folder), run_id) and time.monotonic() < deadline:
            time.sleep(5.0)


if __name__ == "__main__":
    main(*sys.argv[1:])

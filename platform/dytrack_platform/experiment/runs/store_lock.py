"""One command at a time works in a folder of an object store, on whatever machine it runs.

The kernel's lock (:mod:`~dytrack_platform.storage.run_lock`) ends at its machine, and pyarrow
offers no conditional write. So an object says who is at work, and its owner changes it every few
seconds. Whoever meets one waits and looks: if it changes, its owner lives, and the command is
refused; if it does not, its owner is
dead. No clocks are compared. Of two that begin in the same moment the one whose object stays goes
on; one that was out of the store's reach for so long that another took over ends at its next write.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dytrack_platform.errors import DyTrackError, StorageError
from dytrack_platform.storage import files
from dytrack_platform.storage.atomic import write_atomically
from dytrack_platform.storage.filesystem import local_path

_OWN = "store_lock.json"
"""File of the local folder with the name of the lock that was taken last from here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """Seconds of what a lock does."""

    beat: float = 10.0
    """Between two changes by the owner."""
    dead: float = 30.0
    """Without a change, after which an owner counts as dead."""
    settle: float = 2.0
    """Between taking it and looking whether another took it in the same moment."""


class StoreLock:
    """The lock of one folder; :func:`store_lock` takes and frees it."""

    def __init__(self, location: str, folder: Path, pace: Pace) -> None:
        self._location, self._folder, self._pace = location, folder, pace
        self._token, self._beats = uuid.uuid4().hex, 0
        self._ended = threading.Event()
        self._taken_by: str | None = None
        self._thread = threading.Thread(target=self._beat, name="lock", daemon=True)

    def require(self) -> None:
        """Refuse to go on where another command took over.

        Raises:
            StorageError: It did.
        """
        if self._taken_by is not None:
            raise StorageError(
                f"{self._location}: {self._taken_by} took over, because this process had not "
                f"written there for more than {self._pace.dead:g} s; that one goes on"
            )

    def take(self, say: Callable[[str], None]) -> None:
        """Take it.

        Raises:
            StorageError: Another command holds it, or the store cannot be reached.
        """
        found = files.read_json(self._location)
        if found is not None and found.get("token") != self._token_before():
            say(f"looking for {self._pace.dead:g} s whether {_named(found)} is still at work there")
            self._require_dead(found)
        # Before it is taken: a kill in between costs nobody anything.
        write_atomically(self._folder / _OWN, json.dumps({"token": self._token}) + "\n")
        self._write()
        time.sleep(self._pace.settle)
        found = files.read_json(self._location)
        if found is not None and found.get("token") != self._token:
            raise self._busy(found)
        self._thread.start()

    def free(self) -> None:
        """Give it back, if it is still ours."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(self._pace.beat)
        found = files.read_json(self._location)
        if found is not None and found.get("token") == self._token:
            files.remove(self._location)

    def _token_before(self) -> str | None:
        """Return the lock that this folder's last command took: who asks holds the kernel's lock.

        That command is dead, then, and nobody waits for it.
        """
        before = files.read_json(str((self._folder / _OWN).absolute()))
        return None if before is None else str(before.get("token"))

    def _require_dead(self, first: dict[str, Any]) -> None:
        deadline = time.monotonic() + self._pace.dead
        while time.monotonic() < deadline:
            time.sleep(self._pace.beat / 10)
            found = files.read_json(self._location)
            if found is None:
                return  # it has just ended
            if found != first:
                raise self._busy(found)

    def _busy(self, found: dict[str, Any]) -> StorageError:
        return StorageError(
            f"{self._location}: {_named(found)} is at work there; wait for it, or choose another "
            "name or --out"
        )

    def _write(self) -> None:
        self._beats += 1
        about = {"token": self._token, "host": socket.gethostname(), "process": os.getpid()}
        files.write_json(self._location, {**about, "beat": self._beats})

    def _beat(self) -> None:
        while not self._ended.wait(self._pace.beat):
            try:
                found = files.read_json(self._location)
                if found is not None and found.get("token") != self._token:
                    self._taken_by = _named(found)
                    return
                self._write()
            except DyTrackError:
                continue  # the store is away; whoever took over meanwhile is seen at the next look


def _named(found: dict[str, Any]) -> str:
    return f"process {found.get('process')} of {found.get('host')}"


@contextmanager
def store_lock(
    location: str, folder: Path, say: Callable[[str], None], pace: Pace | None = None
) -> Iterator[Callable[[], None]]:
    """Hold the lock of a folder on an object store while the body runs; nothing for a local one.

    Args:
        location: Of the lock: a file in the folder.
        folder: A local folder for that location, of which the caller holds the lock.
        say: Called with one-line messages.
        pace: Seconds of what it does.

    Yields:
        What to call before a write: it raises :class:`StorageError` where another took over.

    Raises:
        StorageError: Another command holds it, or the store cannot be reached.
    """
    if local_path(location) is not None:
        yield lambda: None
        return
    lock = StoreLock(location, folder, pace or Pace())
    lock.take(say)
    try:
        yield lock.require
    finally:
        lock.free()

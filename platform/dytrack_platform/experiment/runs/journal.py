"""A run's log on its way to MLflow: written to disk first, delivered when the server answers.

Every entry is a line of ``journal.jsonl`` in the run's folder; a second file holds how many bytes
of it MLflow has taken. A thread delivers in the background and waits between tries, so that
training never waits for a server. What could not be delivered when training ends stays on disk,
and ``dytrack upload RUN`` delivers it. Sent twice, a point counts once: MLflow ignores a metric
that it has with the same time, step and value.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from os import SEEK_END
from pathlib import Path
from typing import Any, BinaryIO

from dytrack_platform.errors import DyTrackError, StorageError
from dytrack_platform.storage.atomic import replacing

JOURNAL = "journal.jsonl"
DELIVERED = "journal.delivered"
_LOG = logging.getLogger(__name__)
_LONGEST_PAUSE_S = 10.0
_ENTRIES_A_CALL = 40

Entry = dict[str, Any]
Deliver = Callable[[list[Entry]], None]
"""Hands entries to MLflow in order; raises StorageError where it does not answer."""


class Journal:
    """Appends entries, and delivers them in a thread between :meth:`start` and :meth:`stop`."""

    def __init__(self, folder: Path, deliver: Deliver) -> None:
        """Open the journal of a run.

        Args:
            folder: Where its files lie.
            deliver: Called in the journal's thread.
        """
        self._folder = folder
        self._deliver = deliver
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._unsaved: list[Entry] = []
        self._position = 0
        self._deadline = 0.0
        self.trouble: str | None = None
        """Why the last try failed; None when all is well."""

    def metrics(self, values: Mapping[str, float], step: int, at: float | None = None) -> None:
        """Note metrics of a step, at a time in seconds since 1970, or now."""
        when = _now() if at is None else int(at * 1000)
        self.append({"metrics": dict(values), "step": step, "time": when})

    def parameters(self, values: Mapping[str, object]) -> None:
        """Note parameters."""
        self.append({"parameters": {key: str(value) for key, value in values.items()}})

    def tags(self, values: Mapping[str, str]) -> None:
        """Note tags."""
        self.append({"tags": dict(values)})

    def file(self, name: str, content: bytes) -> None:
        """Write a file below the run's folder, and note it as an artefact of the same path."""
        path = self._folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            self._complain(path, error)
            return
        self.append({"file": name})

    def end(self, status: str) -> None:
        """Note how the run ended: FINISHED, FAILED or KILLED."""
        self.append({"status": status, "time": _now()})

    def child(self, name: str) -> "ChildJournal":
        """Return what notes entries of a run below this one, by its name."""
        return ChildJournal(self, name)

    def append(self, entry: Entry) -> None:
        """Note any entry that ``deliver`` understands.

        Where the disk is full it is kept in memory only: the end of a run that a full disk stopped
        is told to MLflow all the same.
        """
        path = self._folder / JOURNAL
        with self._lock:
            try:
                with path.open("a+b") as file:
                    # A writer that was killed, or a disk that was full, left half a line: what
                    # follows would go down with it.
                    torn = b"\n" if _is_torn(file) else b""
                    file.write(torn + json.dumps(entry).encode() + b"\n")
            except OSError as error:
                self._unsaved.append(entry)
                self._complain(path, error)

    def pending(self) -> bool:
        """Say whether something is not delivered yet."""
        path = self._folder / JOURNAL
        saved = path.is_file() and path.stat().st_size > self._delivered()
        return saved or bool(self._unsaved)

    def start(self) -> None:
        """Begin to deliver in the background."""
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def stop(self, wait_s: float) -> bool:
        """Deliver what is left, for at most ``wait_s`` seconds; returns whether all went out."""
        self._deadline = time.monotonic() + wait_s
        self._ending.set()
        if self._thread is not None:
            self._thread.join(wait_s)
        return not self.pending()

    def deliver_all(self) -> None:
        """Deliver everything now, in the caller's thread.

        Raises:
            StorageError: MLflow does not answer; nothing is lost.
        """
        for entries, end in self._batches():
            self._deliver(entries)
            # Only now: a crash between delivery and this line delivers twice, which MLflow
            # forgives; the other order would lose entries, which nothing forgives.
            self._position = end
            path = self._folder / DELIVERED
            try:
                with replacing(path) as beside:
                    beside.write_text(str(end))
            except OSError as error:
                self._complain(path, error)
        with self._lock:
            unsaved = list(self._unsaved)
        if unsaved:
            self._deliver(unsaved)
            with self._lock:
                del self._unsaved[: len(unsaved)]

    def _run(self) -> None:
        pause = 0.5
        while True:
            ending = self._ending.is_set()
            try:
                self.deliver_all()
                self.trouble, pause = None, 0.5
            except Exception as error:  # noqa: BLE001  (said below)
                # Whatever it is, it is told, and the next try may do better: without its thread a
                # journal delivers nothing more, and would be taken for one that was too slow.
                if not isinstance(error, StorageError):
                    _LOG.warning("the journal: %s", error, exc_info=True)
                self.trouble = f"{type(error).__name__}: {error}"
                if isinstance(error, DyTrackError):
                    self.trouble = str(error)
                # A server that comes back after an outage is not met by every run at once.
                pause = min(2 * pause, _LONGEST_PAUSE_S)
            if not ending:
                self._ending.wait(pause)  # entries that come together go out together
                continue
            # A server that is being started again has until the deadline to come back.
            if self.trouble is None or time.monotonic() + pause > self._deadline:
                return
            time.sleep(min(pause, 1.0))

    def _batches(self) -> Iterator[tuple[list[Entry], int]]:
        """Read undelivered entries, some at a time, with the position after them."""
        path = self._folder / JOURNAL
        if not path.is_file():
            return
        position = self._delivered()
        with path.open("rb") as file:
            file.seek(position)
            entries: list[Entry] = []
            for line in file:
                if not line.endswith(b"\n"):
                    break  # it is still being written, or its writer was killed
                position += len(line)
                entries += _read(line)
                if len(entries) >= _ENTRIES_A_CALL:
                    yield entries, position
                    entries = []
            if entries:
                yield entries, position

    def _delivered(self) -> int:
        try:
            return max(self._position, int((self._folder / DELIVERED).read_text()))
        except (FileNotFoundError, ValueError):
            return self._position

    def _complain(self, path: Path, error: OSError) -> None:
        # The curves are not worth the training.
        self.trouble = f"{path}: cannot be written: {error}"
        _LOG.warning(self.trouble)


class ChildJournal:
    """Notes entries of a run below the journal's own; it is made when they are delivered."""

    def __init__(self, journal: Journal, name: str) -> None:
        self._journal, self._name = journal, name

    def running(self) -> None:
        """Note that it begins, or goes on."""
        self.append({"status": "RUNNING", "time": _now()})

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Note metrics of a step."""
        self.append({"metrics": dict(values), "step": step, "time": _now()})

    def parameters(self, values: Mapping[str, object]) -> None:
        """Note parameters."""
        self.append({"parameters": {key: str(value) for key, value in values.items()}})

    def tags(self, values: Mapping[str, str]) -> None:
        """Note tags."""
        self.append({"tags": dict(values)})

    def end(self, status: str) -> None:
        """Note how it ended: FINISHED, FAILED or KILLED."""
        self.append({"status": status, "time": _now()})

    def append(self, entry: Entry) -> None:
        """Note any entry."""
        self._journal.append({"child": self._name, **entry})


def _is_torn(file: BinaryIO) -> bool:
    """Say whether a file's last line has no end."""
    if not (size := file.seek(0, SEEK_END)):
        return False
    file.seek(size - 1)
    return file.read(1) != b"\n"


def _read(line: bytes) -> list[Entry]:
    try:
        return [json.loads(line)]
    except ValueError:
        _LOG.warning("a torn line of %d bytes in the journal is passed over", len(line))
        return []


def _now() -> int:
    return int(time.time() * 1000)

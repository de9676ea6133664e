"""A job's log as it grows: a stream may be cut or die in silence, and nothing is said twice."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dytrack_platform.experiment.cluster.client import LOST, Client

from ray.exceptions import AuthenticationError  # isort: skip

_LEAVE_S = 2.0


@dataclass(slots=True)
class JobLog:
    """What was said of a log, however often it was read: each reading begins at its start."""

    client: Client
    job: str
    say: Callable[[str], None]
    said: int = 0
    """Characters in all."""

    def take(self, text: str, start: int) -> int:
        """Say what is new in a piece that begins at a character; returns where it ends."""
        new = text[max(0, self.said - start) :]
        if new:
            self.say(new)
            self.said = start + len(text)
        return start + len(text)

    @contextlib.contextmanager
    def streamed(self) -> Iterator["Stream"]:
        """Say the log as it grows, beside the body."""
        stream = Stream(self)
        try:
            yield stream
        finally:
            stream.close()


@dataclass(slots=True)
class Stream:
    """One reading of a log, in a thread, for a connection that died is silent for ever."""

    log: JobLog
    whole: bool = False
    """The cluster has ended it, behind the last line that there was."""
    heard: float = field(default_factory=time.monotonic)
    """When it last said something."""
    _closed: bool = False
    _begun: threading.Event = field(default_factory=threading.Event)
    _loop: asyncio.AbstractEventLoop | None = None
    _task: "asyncio.Task[None] | None" = None
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        """Begin to read."""
        self._thread = threading.Thread(target=self._run, name="job-log", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait for its end for some seconds; returns whether it has come."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def finish(self, silent_s: float) -> bool:
        """Wait until the cluster ends it or it is silent for a while; returns whether it ended."""
        self.heard = time.monotonic()
        while not self.wait(0.1) and time.monotonic() - self.heard < silent_s:
            pass
        return self.whole

    def close(self) -> None:
        """Say nothing more, and leave the connection."""
        self._closed = True
        if self._begun.wait(_LEAVE_S) and self._loop is not None and self._task is not None:
            with contextlib.suppress(RuntimeError):  # it has ended meanwhile
                self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(_LEAVE_S)

    def _run(self) -> None:
        with contextlib.suppress(*LOST, OSError, AuthenticationError, asyncio.CancelledError):
            asyncio.run(self._read())
        self._begun.set()

    async def _read(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._begun.set()
        seen = 0
        async for piece in self.log.client.tail_job_logs(self.log.job):
            if self._closed:
                return
            self.heard = time.monotonic()
            seen = self.log.take(piece, seen)
        self.whole = True

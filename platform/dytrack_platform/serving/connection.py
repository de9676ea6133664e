"""One WebSocket: reads what a client sends, bounds it, and sends what comes of it.

Three tasks for each connection: one reads, one computes frames in order, one watches for silence;
where not reading does not hold a client back, a fourth takes in what comes and counts it.
Whatever ends it, the client is told why, as far as it still listens.
"""

import asyncio
import logging
import time
from collections import deque
from contextlib import suppress

from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from dytrack_platform.serving import messages
from dytrack_platform.serving.limits import Settings
from dytrack_platform.serving.messages import Arrived, Command, Refused, read_command, read_frame
from dytrack_platform.serving.metrics import Metrics
from dytrack_platform.serving.stream import Stream

_LOG = logging.getLogger(__name__)
_MESSAGE_BYTES = 256
"""What a message costs besides its content."""


class _Ended(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


_LAST_WORDS = {
    "failed": (("server", "the server failed"), 1011),
    "too_fast": (
        (
            "too_fast",
            "more waits for an answer than the server keeps; wait for answers, or choose the mode "
            "realtime",
        ),
        1008,
    ),
}
"""By reason of an end: the code and sentence of an error told before it, and the close code."""


class Connection:
    """Serves one client until it ends.

    Args:
        socket: Accepted.
        stream: Its targets.
        settings: How the replica serves.
        metrics: Where it counts.
        may_start: Says whether one more stream may start.
    """

    def __init__(
        self,
        socket: WebSocket,
        stream: Stream,
        settings: Settings,
        metrics: Metrics,
        room: "Room",
    ) -> None:
        self._socket, self._stream = socket, stream
        self._settings, self._limits, self._metrics = settings, settings.limits, metrics
        self._room = room
        self._mode: messages.StreamMode = "every"
        self._frames: deque[Arrived] = deque()
        self._commands: list[Command] = []
        self._dropped = 0
        self._started = False
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._waiting_bytes = 0
        self._changed = asyncio.Condition()
        self._sending = asyncio.Lock()
        self._heard = self._sent = time.monotonic()
        self._allowed = self._limits.fps
        self._refilled = time.monotonic()
        self._closing = False
        self._busy = False

    async def serve(self) -> str:
        """Serve it; returns why it ended."""
        works = [self._read, self._compute, self._watch]
        if not self._settings.holds_back:
            works.append(self._take_in)
        tasks = [asyncio.create_task(work()) for work in works]
        reason = "failed"
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            reason = self._reason(next(iter(done)))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._say_goodbye(reason)
            self._stream.close()
            if self._started:
                self._room.leave()
        return reason

    def drain(self) -> None:
        """End the stream after the frames that it has sent."""
        self._closing = True

    def _reason(self, task: "asyncio.Task[None]") -> str:
        error = task.exception()
        if isinstance(error, _Ended):
            return error.reason
        if isinstance(error, WebSocketDisconnect):
            return "client_gone"
        if error is not None:
            _LOG.error("a stream failed", exc_info=error)
        return "failed"

    async def _say_goodbye(self, reason: str) -> None:
        if reason in ("client_gone", "slow_reader"):
            with suppress(Exception):
                await asyncio.wait_for(self._socket.close(1008), 1.0)
            return
        told, code = _LAST_WORDS.get(reason, (None, 1000))
        with suppress(Exception):  # the client may be gone
            async with asyncio.timeout(2.0):
                if told:
                    await self._socket.send_text(messages.error(*told))
                await self._socket.send_text(messages.end(reason))
                await self._socket.close(code)

    # What comes in.

    async def _take_in(self) -> None:
        """Keep up with the client, and end the connection where the server cannot."""
        while True:
            message = await self._hear()
            self._waiting_bytes += _size(message)
            if self._waiting_bytes > self._limits.waiting_bytes:
                raise _Ended("too_fast")
            self._inbox.put_nowait(message)

    async def _hear(self) -> Message:
        message = await self._socket.receive()
        self._heard = time.monotonic()
        if message["type"] == "websocket.disconnect":
            raise _Ended("client_gone")
        return message

    async def _next(self) -> Message:
        if self._settings.holds_back:
            return await self._hear()
        message = await self._inbox.get()
        self._waiting_bytes -= _size(message)
        return message

    async def _read(self) -> None:
        while True:
            message = await self._next()
            try:
                if message.get("bytes") is not None:
                    await self._take_frame(message["bytes"])
                elif message.get("text") is not None:
                    await self._take_text(message["text"])
            except Refused as error:
                await self._tell(error)

    async def _take_text(self, text: str) -> None:
        limits = self._limits
        most = limits.frame_bytes if '"resume"' in text else limits.text_bytes
        if len(text.encode()) > most:
            raise Refused("too_large", f"a message has at most {most} bytes")
        command = read_command(text)
        if command.kind == "stop":
            await self._finish_up()
            raise _Ended("stopped")
        if command.kind == "token":
            await self._send(messages.event("token", token=await self._stream.token()))
            return
        if command.kind != "start" and not self._started:
            raise Refused("not_started", f"{command.kind}: send start first")
        if len(self._commands) >= 100:
            raise Refused("too_many", "too many messages without a frame")
        if command.resume and any(waiting.resume for waiting in self._commands):
            raise Refused("too_many", "a start with a resume token waits for its frame already")
        await self._stream.check(command)
        if command.kind == "start":
            if not self._started and not self._room.enter():
                raise Refused("busy", "the server has as many streams as it takes; try later")
            self._started = True
            self._mode = command.mode
        self._commands.append(command)

    async def _take_frame(self, data: bytes) -> None:
        if not self._started:
            raise Refused("not_started", "send start before the first frame")
        if len(data) > self._limits.frame_bytes + messages.HEADER.size:
            raise Refused("too_large", f"a frame has at most {self._limits.frame_bytes} bytes")
        header, body = read_frame(data)
        await self._keep_rate()
        arrived = Arrived(header, body, self._commands)
        self._commands = []
        async with self._changed:
            if self._mode == "every":
                # Not reading on is what holds the client back.
                await self._changed.wait_for(lambda: len(self._frames) < self._limits.queued)
                self._frames.append(arrived)
            else:
                while self._frames and not self._frames[-1].needed:
                    old = self._frames.pop()
                    arrived.commands = [*old.commands, *arrived.commands]
                    self._dropped += 1
                if len(self._frames) >= self._limits.queued:
                    await self._changed.wait_for(lambda: len(self._frames) < self._limits.queued)
                self._frames.append(arrived)
            self._changed.notify_all()

    async def _keep_rate(self) -> None:
        """Read more slowly where frames come faster than allowed."""
        now, rate = time.monotonic(), self._limits.fps
        self._allowed = min(rate, self._allowed + (now - self._refilled) * rate)
        self._refilled = now
        if self._allowed < 1:
            await asyncio.sleep((1 - self._allowed) / rate)
            self._allowed, self._refilled = 1.0, time.monotonic()
        self._allowed -= 1

    # What goes out.

    async def _compute(self) -> None:
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._frames)
                arrived = self._frames.popleft()
                self._busy = True
                dropped, self._dropped = self._dropped, 0
                self._changed.notify_all()
            number = arrived.header.frame
            resumed = any(command.resume for command in arrived.commands)
            try:
                answer = await self._stream.answer(arrived, dropped)
            except Refused as error:
                # What was said with a frame that cannot be used takes effect with the next one.
                self._dropped += dropped
                await self._put_back(arrived.commands)
                await self._tell(error, number)
            else:
                for refused in answer.errors:
                    await self._tell(refused, number)
                if resumed:
                    await self._send(messages.event("resumed", frame=number))
                await self._send(answer.text)
            async with self._changed:
                self._busy = False
                self._changed.notify_all()

    async def _put_back(self, commands: list[Command]) -> None:
        if not commands:
            return
        async with self._changed:
            if self._frames:
                self._frames[0].commands = [*commands, *self._frames[0].commands]
            else:
                self._commands = [*commands, *self._commands]

    async def _finish_up(self) -> None:
        """Wait until every frame that was sent is answered."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._frames and not self._busy)

    async def _watch(self) -> None:
        pause = min(1.0, self._limits.heartbeat_s / 4, self._limits.idle_s / 4)
        while True:
            await asyncio.sleep(pause)
            now = time.monotonic()
            if self._closing:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._finish_up(), self._limits.drain_s / 2)
                raise _Ended("server_stopping")
            if now - self._heard > self._limits.idle_s and not self._frames and not self._busy:
                raise _Ended("idle")
            if now - self._sent > self._limits.heartbeat_s:
                await self._send(messages.event("heartbeat"))

    async def _tell(self, error: Refused, frame: int | None = None) -> None:
        self._metrics.errors.labels(error.code).inc()
        await self._send(messages.error(error.code, str(error), frame))

    async def _send(self, text: str) -> None:
        if self._socket.application_state is not WebSocketState.CONNECTED:
            raise _Ended("client_gone")
        async with self._sending:
            try:
                async with asyncio.timeout(self._limits.send_s):
                    await self._socket.send_text(text)
            except TimeoutError:
                raise _Ended("slow_reader") from None
            except (WebSocketDisconnect, RuntimeError, OSError):
                raise _Ended("client_gone") from None
        self._sent = time.monotonic()


def _size(message: Message) -> int:
    return len(message.get("bytes") or message.get("text") or "") + _MESSAGE_BYTES


class Room:
    """Counts the streams of a replica."""

    def __init__(self, most: int, metrics: Metrics) -> None:
        self._most, self._metrics, self.count = most, metrics, 0

    def enter(self) -> bool:
        """Take a place; False where there is none."""
        if self.count >= self._most:
            return False
        self.count += 1
        self._metrics.streams.set(self.count)
        return True

    def leave(self) -> None:
        """Give it back."""
        self.count -= 1
        self._metrics.streams.set(self.count)

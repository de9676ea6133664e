"""The server of one replica as an ASGI application: the page, four HTTP answers, one WebSocket."""

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from dytrack_platform.serving.connection import Connection, Room
from dytrack_platform.serving.limits import Settings
from dytrack_platform.serving.metrics import Metrics
from dytrack_platform.serving.models import Models, Source
from dytrack_platform.serving.stream import Stream
from dytrack_platform.storage.addresses import is_loopback

PROTOCOL = "dytrack.v1"
"""WebSocket subprotocol; browsers, which cannot set headers, add ``token.`` and the token to it."""
_PAGE = Path(__file__).parent / "page"
_FILES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "sample.webm": ("sample.webm", "video/webm"),
}
_SAFE = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


class Server:
    """One replica: models, limits, metrics and every connection.

    Args:
        sources: Where models come from; the first is the default.
        settings: How it serves.
        gather: Returns the metrics of all replicas; its own where None.

    Raises:
        DyTrackError: A model cannot be loaded.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        settings: Settings,
        gather: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        self.settings, self.metrics = settings, Metrics()
        self.models = Models(sources, settings, self.metrics)
        self._gather = gather
        self._room = Room(settings.limits.streams, self.metrics)
        self._connections: set[Connection] = set()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="dytrack-decode")
        self._number = 0
        self.stopping = False

    def app(self) -> Starlette:
        """Return the application."""
        routes = [
            Route("/healthz", self._health),
            Route("/readyz", self._ready),
            Route("/v1/model", self._model),
            Route("/metrics", self._metrics),
            WebSocketRoute("/v1/track", self._track),
            *(Route(f"/{name}", self._file) for name in _FILES),
        ]
        # Without these handlers an error's body would tell what failed inside.
        handlers = {404: _not_found, 405: _not_found, 500: _failed}

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            yield
            await self.drain()

        return Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)

    async def drain(self) -> None:
        """Answer what was sent, tell every stream that the server stops, and stop."""
        if self.stopping:
            return
        self.stopping = True
        for connection in list(self._connections):
            connection.drain()
        for _ in range(int(self.settings.limits.drain_s * 20)):
            if not self._connections:
                break
            await asyncio.sleep(0.05)
        await asyncio.to_thread(self.models.stop)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def snapshot(self) -> str:
        """Return this replica's metrics."""
        metrics = self.metrics
        models = [self.models.current(name) for name in self.models.names]
        metrics.connections.set(len(self._connections))
        metrics.waiting.set(sum(model.scheduler.waiting for model in models))
        metrics.regrouped.set(sum(model.scheduler.planner.regroupings for model in models))
        metrics.audits_dropped.set(sum(model.scheduler.dropped_audits for model in models))
        return metrics.text()

    async def _health(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _ready(self, request: Request) -> Response:
        if self.stopping:
            return PlainTextResponse("stopping\n", 503)
        return PlainTextResponse("ready\n")

    async def _model(self, request: Request) -> Response:
        if not self._known(request):
            return _unauthorised()
        about = self.models.about()
        limits = self.settings.limits
        return JSONResponse(
            {
                **about[0],
                "models": about,
                "limits": {
                    "frame_bytes": limits.frame_bytes,
                    "waiting_bytes": limits.waiting_bytes,
                    "pixels": limits.pixels,
                    "targets": limits.targets,
                    "fps": limits.fps,
                    "idle_s": limits.idle_s,
                },
            },
            headers=_SAFE,
        )

    async def _metrics(self, request: Request) -> Response:
        if not self._known(request):
            return _unauthorised()
        text = await self._gather() if self._gather else self.snapshot()
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def _file(self, request: Request) -> Response:
        name, kind = _FILES[request.url.path.rsplit("/", 1)[-1]]
        return FileResponse(_PAGE / name, media_type=kind, headers=_SAFE)

    async def _track(self, socket: WebSocket) -> None:
        if not self._own_page(socket) or not self._known(socket):
            await socket.close(4401)
            return
        offered = socket.scope.get("subprotocols") or []
        protocol = PROTOCOL if PROTOCOL in offered else None
        if self.stopping or len(self._connections) >= self.settings.limits.connections:
            await socket.close(1013)
            return
        await socket.accept(subprotocol=protocol)
        self._number += 1
        stream = Stream(self._number, self.models, self.settings, self.metrics, self._pool)
        connection = Connection(socket, stream, self.settings, self.metrics, self._room)
        self._connections.add(connection)
        try:
            reason = await connection.serve()
            self.metrics.ended.labels(reason).inc()
        finally:
            self._connections.discard(connection)

    def _own_page(self, socket: WebSocket) -> bool:
        """Refuse pages of other sites: a browser says where a page comes from, others do not.

        Where no token is asked for, the page must come from this machine by name: any other name
        may lead here for a moment, for a page that wants in.
        """
        origin = socket.headers.get("origin")
        if origin is None:
            return True
        place = urlsplit(origin)
        known = bool(self.settings.token) or is_loopback(place.hostname or "")
        return known and place.netloc == socket.headers.get("host")

    def _known(self, connection: HTTPConnection) -> bool:
        """Compare the client's token, in a time that says nothing about it."""
        if not self.settings.token:
            return True
        given = connection.headers.get("authorization", "")
        scheme, _, token = given.partition(" ")
        if scheme.lower() != "bearer":
            offered = connection.scope.get("subprotocols") or []
            token = next((p[6:] for p in offered if p.startswith("token.")), "")
        return hmac.compare_digest(token.encode(), self.settings.token.encode())


def _unauthorised() -> Response:
    return JSONResponse(
        {"error": "a token is needed: Authorization: Bearer TOKEN"},
        401,
        headers={"www-authenticate": "Bearer"},
    )


async def _not_found(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "there is no such address here"}, 404)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the server failed"}, 500)

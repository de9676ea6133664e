"""Ray's Jobs API on loopback: what it was sent is kept, and how it answers is told beforehand."""

import asyncio
import threading

import pytest
import ray
from aiohttp import web


class Dashboard:
    """As much of a dashboard as the client asks."""

    def __init__(self):
        self.version = ray.__version__
        self.jobs = {}
        self.sent = []
        """What was submitted, as it came."""
        self.hosts = ["elsewhere"]
        self.faults = {}
        """By the beginning of "METHOD /path": a function of the request in place of an answer."""
        self.log = ""
        self.streams = []
        """What becomes of each reading of the log: pieces, and at last None for a silent end."""

    def put(self, name, status="RUNNING", **more):
        """Let it have a job."""
        self.jobs[name] = {
            "type": "SUBMISSION",
            "submission_id": name,
            "status": status,
            "entrypoint": "true",
            "metadata": {},
            **more,
        }

    def app(self):
        """Return the application that answers as Ray does."""
        app = web.Application(client_max_size=2**30, middlewares=[self._faulty])
        app.router.add_get("/api/version", self._version)
        app.router.add_get("/nodes", self._nodes)
        app.router.add_get("/api/packages/{path:.*}", self._no_package)
        app.router.add_put("/api/packages/{path:.*}", self._take)
        app.router.add_get("/api/jobs/", self._list)
        app.router.add_post("/api/jobs/", self._submit)
        app.router.add_get("/api/jobs/{name}", self._about)
        app.router.add_post("/api/jobs/{name}/stop", self._stop)
        app.router.add_get("/api/jobs/{name}/logs", self._logs)
        app.router.add_get("/api/jobs/{name}/logs/tail", self._tail)
        return app

    @web.middleware
    async def _faulty(self, request, handler):
        asked = f"{request.method} {request.path}"
        for beginning, fault in self.faults.items():
            if asked.startswith(beginning):
                return await fault(request)
        name = request.match_info.get("name")
        if name is not None and name not in self.jobs:
            return web.Response(status=404, text=f"Job {name} does not exist")
        return await handler(request)

    async def _version(self, _):
        return web.json_response({"version": "4", "ray_version": self.version})

    async def _nodes(self, _):
        return web.json_response({"result": True, "data": {"hostNameList": self.hosts}})

    async def _no_package(self, _):
        return web.Response(status=404)

    async def _take(self, _):
        return web.Response()

    async def _list(self, _):
        return web.json_response(list(self.jobs.values()))

    async def _about(self, request):
        return web.json_response(self.jobs[request.match_info["name"]])

    async def _stop(self, request):
        self.jobs[request.match_info["name"]] |= {"status": "STOPPED"}
        return web.json_response({"stopped": True})

    async def _logs(self, _):
        return web.json_response({"logs": self.log})

    async def _submit(self, request):
        wanted = await request.json()
        self.sent.append(wanted)
        name = wanted["submission_id"]
        if name in self.jobs:
            return web.Response(
                status=500,
                text=f"Traceback (most recent call last):\nValueError: Job with submission_id "
                f"{name} already exists. Please use a different submission_id.",
            )
        self.put(name, metadata=wanted["metadata"])
        return web.json_response({"job_id": name, "submission_id": name})

    async def _tail(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for piece in self.streams.pop(0):
            if piece is None:  # as a connection through a router that forgot it
                await asyncio.sleep(600)
            elif callable(piece):
                piece()
            else:
                await socket.send_str(piece)
        if self.streams:
            request.transport.abort()
        return socket


@pytest.fixture
def dashboard(monkeypatch):
    """A dashboard, and ``address`` where it answers."""
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    found = Dashboard()
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(found.app(), shutdown_timeout=0.1)

    async def serve():
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner.addresses[0][1]

    async def leave():
        await runner.cleanup()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    port = asyncio.run_coroutine_threadsafe(serve(), loop).result(10)
    found.address = f"http://127.0.0.1:{port}"
    yield found
    asyncio.run_coroutine_threadsafe(leave(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()

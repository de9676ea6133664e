"""A real server on the loopback, and a client that says what the protocol says."""

import asyncio
import contextlib
import json
import struct
import threading
import time
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import uvicorn
from websockets.asyncio.client import connect

from dytrack_model.checkpoint import SavedTracker
from dytrack_model.config import variant
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import OperatingPoint
from dytrack_platform.serving.app import Server
from dytrack_platform.serving.batching import open_served
from dytrack_platform.serving.limits import Limits, Settings
from dytrack_platform.serving.models import Source

torch.set_num_threads(1)
POINTS = (
    OperatingPoint(name="fast", thresholds=(0.0, 0.0)),
    OperatingPoint(name="balanced", thresholds=(0.45, 0.45)),
    OperatingPoint(name="accurate", thresholds=(float("inf"), float("inf"))),
)
GOLDEN = Path(__file__).parents[3] / "golden/tracker"
"""A trained tracker."""
BOX = [40.0, 30.0, 30.0, 24.0]


def network(seed=0):
    torch.manual_seed(seed)
    return DyTrackNetwork(variant("test")).eval()


@pytest.fixture(scope="session")
def saved():
    return SavedTracker(network=network(), points=POINTS)


@pytest.fixture(scope="session")
def served(saved):
    return open_served(saved, rounds=1)


@pytest.fixture(scope="session")
def frames():
    """Twelve frames (96, 128, 3) of a bright patch that moves over noise."""
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 120, (96, 128, 3), dtype=np.uint8)
    made = []
    for k in range(12):
        frame = ground.copy()
        frame[30 + k : 54 + k, 40 + 2 * k : 70 + 2 * k] = 230
        made.append(frame)
    return made


def png(frame):
    return cv2.imencode(".png", frame[..., ::-1])[1].tobytes()


def packed(number, frame, seconds=0.0):
    data = frame if isinstance(frame, bytes) else png(frame)
    return struct.pack("<Qd", number, seconds) + data


class Running:
    """A server that runs in a thread."""

    def __init__(self, server):
        self.server = server
        config = uvicorn.Config(
            server.app(),
            port=0,
            log_level="error",
            ws="websockets-sansio",
            lifespan="on",
            timeout_graceful_shutdown=5,
            ws_ping_interval=2,
            ws_ping_timeout=2,
        )
        self.uvicorn = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.uvicorn.run, daemon=True)
        self.thread.start()
        until = time.monotonic() + 20
        while not self.uvicorn.started:
            assert time.monotonic() < until
            time.sleep(0.01)
        self.port = self.uvicorn.servers[0].sockets[0].getsockname()[1]

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.port}/v1/track"

    def get(self, path, token=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        if token:
            request.add_header("authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), error.headers

    def stop(self):
        self.uvicorn.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def serve(served):
    """Start servers; they end with the test."""
    running = []

    def start(sources=None, limits=None, **settings):
        plain = [Source("made", lambda: "1", lambda version: served)]
        how = Settings(limits=limits or Limits(), secret="key of the tests", **settings)
        running.append(Running(Server(sources or plain, how)))
        return running[-1]

    yield start
    for one in running:
        one.stop()


class Client:
    """One stream."""

    def __init__(self, socket):
        self.socket = socket
        self.number = 0

    async def say(self, kind, **values):
        await self.socket.send(json.dumps({"type": kind, **values}))

    async def start(self, *boxes, **values):
        targets = [{"id": name, "box": list(box)} for name, box in boxes or (("a", BOX),)]
        await self.say("start", targets=targets, **values)

    async def send(self, frame):
        await self.socket.send(packed(self.number, frame))
        self.number += 1

    async def hear(self, *kinds):
        """Return the next message of these kinds; result, error or end where none is named."""
        while True:
            message = json.loads(await asyncio.wait_for(self.socket.recv(), 20))
            if message["type"] in (kinds or ("result", "error", "end")):
                return message

    async def ask(self, frame):
        await self.send(frame)
        return await self.hear()

    async def token(self):
        """Ask for a resume token."""
        await self.say("token")
        return (await self.hear("token"))["token"]

    async def follow(self, frames):
        return [await self.ask(frame) for frame in frames]


@contextlib.asynccontextmanager
async def client(url, compression=None, **options):
    # Frames are compressed already: to deflate them again took this tier three seconds.
    async with connect(url, max_size=2**26, compression=compression, **options) as socket:
        yield Client(socket)

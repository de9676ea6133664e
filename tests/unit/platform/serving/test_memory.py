"""Memory that is free goes back to the system."""

import asyncio
import gc
import time

import numpy as np
import psutil
import pytest

from dytrack_platform.serving import memory
from dytrack_platform.serving.scheduler import Job

from .conftest import client


def resident():
    return psutil.Process().memory_info().rss / 2**20


def test_what_is_free_between_things_that_are_held_goes_back():
    if memory._trim() is None:
        pytest.skip("the C library has no malloc_trim")
    # Too small for pages of their own, so that they lie in the heap, one behind the other.
    pieces = [np.ones(40_000, np.uint8) for _ in range(4000)]
    held = pieces[::50]
    filled = resident()
    del pieces
    assert memory.give_back()
    assert resident() < filled - 100, "150 MiB were free"
    assert all(piece.all() for piece in held)


def test_a_server_gives_back_now_and_then(serve, monkeypatch):
    times = []
    monkeypatch.setattr(memory, "EVERY_S", 0.05)
    monkeypatch.setattr(memory, "give_back", lambda: times.append(time.monotonic()))
    serve(poll_s=0.02)
    deadline = time.monotonic() + 10
    while len(times) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(times) >= 3
    assert min(np.diff(times)) >= 0.05


def test_frames_go_without_the_collector_of_cycles(serve, frames):
    """It counts objects, not the megabytes of a runtime's tensors behind them, and comes late."""
    running = serve(audit_every=2)

    async def story():
        async with client(running.url) as one:
            await one.start()
            await one.follow(frames)
            await asyncio.sleep(0.2)  # the last audits

    gc.collect()
    gc.disable()
    try:
        asyncio.run(story())
        left = [thing for thing in gc.get_objects() if type(thing) is Job]
    finally:
        gc.enable()
    assert len(left) <= 1, "of 12 frames and 6 audits"

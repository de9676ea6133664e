"""What a frame held goes when it is answered."""

import asyncio
import gc

from dytrack_platform.serving.scheduler import Job

from .conftest import client


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

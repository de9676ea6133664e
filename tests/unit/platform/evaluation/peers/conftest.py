"""A tracker that misbehaves on demand, and a few sequences for it."""

import sys

import pytest

from dytrack_platform.datasets import readers
from dytrack_platform.evaluation.peers.process import Entry

FAKE = """
import json, sys, time

def say(**line):
    print(json.dumps(line), flush=True)

mode = sys.argv[1]
if mode == "missing":
    say(missing="a tracker that nobody has")
    sys.exit()
if mode == "stillborn":
    say(error="MemoryError")
    sys.exit(1)
say(ready="fake 1.0")
for line in sys.stdin:
    job = json.loads(line)
    for frame in range(job["frames"]):
        x, y, w, h = job["box"]
        if frame == 3 and mode == "crash":
            sys.exit("out of luck")
        if frame == 3 and mode == "error":
            say(error="MemoryError: Unable to allocate 9 GiB")
            sys.exit(1)
        if frame == 3 and mode == "garbage":
            print("Segmentation", flush=True)
        if frame == 3 and mode == "hang":
            time.sleep(60)
        box = [x, y, w, h]
        if mode == "broken" and frame == 2:
            box = [x, y, float("nan"), h]
        if mode == "gap" and frame == 2:
            say(frame=frame, box=None, decode_ms=1.0)
            continue
        size = {"size": [160, 120]} if frame == 0 else {}
        say(frame=frame, box=box, score=.9 - frame / 100, lost=frame > 5, exit=-1, ms=2.0,
            decode_ms=1.0, **size)
    say(done=True)
"""


@pytest.fixture(scope="session")
def fake(tmp_path_factory):
    """Return a function that makes an entry of a fake tracker: it keeps the first box."""
    script = tmp_path_factory.mktemp("fake") / "fake.py"
    script.write_text(FAKE)

    def make(mode="still", **more):
        return Entry(name=mode, command=(sys.executable, "-I", str(script), mode), **more)

    return make


@pytest.fixture(scope="session")
def sequences(made):
    return list(readers.read("got10k", str(made), "test"))

"""Looking for garbage seldom while a process imports, and as often as before afterwards."""

import subprocess
import sys

_STORY = """
import gc
from dytrack_pipelines.garbage import rest_while_importing
before = gc.get_threshold()
rest_while_importing()
assert gc.get_threshold() == (20_000, *before[1:])
import email.message, xml.dom.minidom, unittest
kept = [[number] for number in range(100_000)]
assert gc.get_threshold() == before, gc.get_threshold()
assert gc.callbacks == []
assert gc.get_freeze_count() > 10_000
one = []
one.append(one)
del one
assert gc.collect() > 0
"""


def test_rest_ends_by_itself_once_nothing_more_is_imported():
    subprocess.run([sys.executable, "-c", _STORY], check=True, timeout=60)

"""Give freed memory back to the system.

A server decodes pictures in several threads, each with an arena of its own in glibc, and frees them
in others. What is free inside an arena stays with the process, which seems to hold more than it
does; docs/LOG.md has what this brings, and what it does not.
"""

import ctypes
from collections.abc import Callable
from functools import cache

EVERY_S = 30.0
"""Seconds between two times; one costs some milliseconds of one thread."""


@cache
def _trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # not glibc
        return None


def give_back() -> bool:
    """Return free pages of every arena; False where the C library knows no such call."""
    trim = _trim()
    if trim is None:
        return False
    trim(0)
    return True

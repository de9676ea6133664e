"""Waiting for a store that refuses for a while: what a long run does, and a first look does not.

A wrong address has to be told at once, so a store that does not answer is tried for seconds. Once a
training runs, its store was there before, and minutes of waiting are cheaper than the run.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

_ATTEMPTS = 3
"""Of a request: about four seconds."""
_PATIENT_ATTEMPTS = 40
"""The pauses between double up to 20 s, of which chance takes a half: about six minutes."""
_TELL_AFTER_S = 10.0

_lock = threading.Lock()
_waiting = 0


def attempts(*, patient: bool = False) -> int:
    """Return how often a request to a store is tried.

    Args:
        patient: As within :func:`patience`, wherever the caller is.
    """
    return _PATIENT_ATTEMPTS if patient or _waiting else _ATTEMPTS


@contextmanager
def patience() -> Iterator[None]:
    """Wait minutes for stores that refuse, in all threads of this process while the body runs."""
    global _waiting
    with _lock:
        _waiting += 1
    try:
        yield
    finally:
        with _lock:
            _waiting -= 1


@contextmanager
def telling_if_slow(
    what: str, say: Callable[[str], None], after_s: float = _TELL_AFTER_S
) -> Iterator[None]:
    """Say so where the body takes long, and again when it is done after all.

    Args:
        what: The place and what it shall take, for the sentences.
        say: Called with them, from another thread the first time.
        after_s: What long is.
    """
    began = monotonic()
    timer = threading.Timer(
        after_s,
        say,
        [f"{what} is not written after {after_s:g} s: the store is slow or refuses; trying on"],
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    took = monotonic() - began
    if took > after_s:
        say(f"{what} is written, after {took:.0f} s")

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

Say = Callable[[str], None]

_here = threading.local()
_lock = threading.Lock()
_waiting: list[tuple[Say | None, float]] = []


def attempts(*, patient: bool = False) -> int:
    """Return how often a request to a store is tried.

    Args:
        patient: As within :func:`patience`, wherever the caller is.
    """
    return _PATIENT_ATTEMPTS if patient or _waiting else _ATTEMPTS


@contextmanager
def patience(say: Say | None = None, tell_after_s: float = _TELL_AFTER_S) -> Iterator[None]:
    """Wait minutes for stores that refuse, in all threads of this process while the body runs.

    Args:
        say: Told of requests that take long, from other threads; nobody is where left out.
        tell_after_s: What long is.
    """
    waiting = (say, tell_after_s)
    with _lock:
        _waiting.append(waiting)
    try:
        yield
    finally:
        with _lock:
            _waiting.remove(waiting)


@contextmanager
def asking(path: str) -> Iterator[None]:
    """Wait for an answer about a path of a store in the body; whoever is patient hears of it.

    A request that is made of others, within it and in its thread, is told of once.

    Args:
        path: For the sentence.
    """
    with _lock:
        listeners = [(say, after_s) for say, after_s in _waiting if say is not None]
    if not listeners or getattr(_here, "asking", False):
        yield
        return
    say, after_s = listeners[-1]
    _here.asking = True
    try:
        with telling_if_slow(f"{path}: the request", "answered", say, after_s):
            yield
    finally:
        _here.asking = False


@contextmanager
def telling_if_slow(
    what: str, done: str, say: Say, after_s: float = _TELL_AFTER_S
) -> Iterator[None]:
    """Say so where the body takes long, and again when it is done after all.

    Args:
        what: The place and what is asked of it, for the sentences.
        done: What it is when it is done, as "written".
        say: Called with them, from another thread the first time.
        after_s: What long is.
    """
    began = monotonic()
    timer = threading.Timer(
        after_s,
        say,
        [f"{what} is not {done} after {after_s:g} s: the store is slow or refuses; trying on"],
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    took = monotonic() - began
    if took > after_s:
        say(f"{what} is {done}, after {took:.0f} s")

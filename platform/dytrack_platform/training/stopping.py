"""The end of a training that is told to end: a checkpoint first."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


@contextmanager
def stopping_gently(
    ask: Callable[[], object], grace_s: float, say: Callable[[str], None]
) -> Iterator[Callable[[], bool]]:
    """Turn a first SIGTERM into a request for a checkpoint while the body runs.

    A second one, or the end of the grace period, has the effect that the first one would have
    had. Yields a function that says whether it was made. Outside of the main thread signals
    cannot be had, and nothing changes.

    Args:
        ask: Asks the training to write a checkpoint and end.
        grace_s: How long that may take.
        say: Told of it.
    """
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield told.is_set
        return
    before, interrupt = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    timer = threading.Timer(grace_s, signal.raise_signal, (signal.SIGTERM,))
    timer.daemon = True

    def end(number: int, frame: FrameType | None) -> None:
        # Told twice: whoever sends it does not want to wait.
        if told.is_set():
            signal.signal(signal.SIGTERM, before)
            signal.raise_signal(signal.SIGTERM)
            return
        told.set()
        ask()
        timer.start()
        say(f"told to end: writing a checkpoint, for at most {grace_s:g} s")

    signal.signal(signal.SIGTERM, end)
    try:
        yield told.is_set
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, interrupt)  # Ray Train leaves its own behind


def end_stopped(step: float, say: Callable[[str], None]) -> NoReturn:
    """Do what the signal asked for, now that the checkpoint is written.

    Raises:
        SystemExit: Always, with the code of a process that SIGTERM ended.
    """
    say(f"stopped at step {step:g}; the same command continues from there")
    raise SystemExit(128 + signal.SIGTERM)

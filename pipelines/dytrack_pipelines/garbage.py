"""A process that starts imports for seconds; looking for garbage meanwhile costs a fifth of it."""

import gc
import sys
from typing import Any

_STARTING = 20_000
"""Objects between two looks at the youngest ones; Python's own is 700 or, from 3.13 on, 2,000."""


def rest_while_importing() -> None:
    """Have Python look for garbage seldom until this process has imported what it needs.

    Modules hold a million objects that stay. What is there when no more of them come is set aside
    for good, so that later looks, in the middle of a video, pass it by; they are then as frequent
    as before.
    """
    before, seen = gc.get_threshold(), 0

    def look(phase: str, _: dict[str, Any]) -> None:
        nonlocal seen
        if phase == "start":
            return
        if len(sys.modules) == seen:
            gc.callbacks.remove(look)
            gc.set_threshold(*before)
            gc.freeze()
        seen = len(sys.modules)

    gc.set_threshold(_STARTING, *before[1:])
    gc.callbacks.append(look)

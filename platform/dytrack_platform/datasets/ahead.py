"""Work ahead in a thread, with bounded memory."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Ahead(Generic[Item]):
    """Produces up to ``depth`` items before they are asked for.

    One thread suffices: decoding and resampling leave Python's lock to the training step.
    """

    def __init__(self, items: Iterator[Item], depth: int) -> None:
        self._items = items
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pairs")
        self._pending: deque[Future[Item | None]] = deque()
        for _ in range(depth):
            self._order()

    def _order(self) -> None:
        self._pending.append(self._pool.submit(next, self._items, None))

    def take(self) -> Item | None:
        """Give the next item, or None after the last; an error of the producer is raised here.

        Raises:
            RuntimeError: It was closed.
        """
        if not self._pending:
            raise RuntimeError("the stream was started again or closed while it was being read")
        item = self._pending.popleft().result()
        if item is not None:
            self._order()
        return item

    def close(self) -> None:
        """Forget what was produced and end the thread, after the item it is at."""
        self._pool.shutdown(cancel_futures=True)
        self._pending.clear()

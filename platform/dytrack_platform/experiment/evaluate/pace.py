"""How fast an evaluation goes, and how long it still takes."""

from collections import Counter

_LATER = "later"


class Pace:
    """Frames that are tracked and still to be tracked, by tracker, and the seconds they took.

    Counted is what workers spend on frames, so that their start (loading, converting, warming up)
    does not pass for slow tracking. One tracker's frames may cost ten times another's: what is
    left of each is timed by its own frames once it has finished some, and by all until then.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._left: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}

    def expect(self, tracker: str, frames: int) -> None:
        """Count frames that are to be tracked."""
        self._left[tracker] += frames

    def expect_later(self, frames: int) -> None:
        """Set how many frames may follow, of trackers that these results decide on."""
        self._left[_LATER] = frames

    def finish(self, tracker: str, frames: int, seconds: float) -> None:
        """Count expected frames as tracked."""
        self._left[tracker] -= frames
        self._done[tracker] += frames
        self._seconds[tracker] = self._seconds.get(tracker, 0.0) + seconds

    def drop(self, tracker: str, frames: int) -> None:
        """Count expected frames as never to be tracked."""
        self._left[tracker] -= frames

    @property
    def frames_per_second(self) -> float:
        """Of all workers together; 0 before a sequence is finished."""
        seconds = sum(self._seconds.values())
        return self._workers * sum(self._done.values()) / seconds if seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """None before a sequence is finished."""
        if not self.frames_per_second:
            return None
        mean = self._workers / self.frames_per_second
        total = 0.0
        for tracker, frames in self._left.items():
            done = self._done[tracker]
            total += frames * (self._seconds[tracker] / done if done else mean)
        return total / self._workers

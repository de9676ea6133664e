"""Which waiting frames to run next, as one batch: the rule of the stage scheduler.

Frames enter at the first stage and leave at their exits. The frames that are deepest go first:
they are nearest to their answers, and it is what whole-model batching would do, but that who leaves
is answered at once, and that no batch is larger than a measured table of costs says is worth it.
*Regrouping* is the other order: those at a deeper stage wait until newcomers have come as far, and
then go on together as one larger batch. That saves time where a larger batch costs less for each
frame, and delays who waits, so it is done only where the table says that the mean answer comes
sooner and that nobody's deadline is missed by it.

Source: the idea that regrouping has to pay for itself is DREX's (2025); the rule is our choice.

Nothing here runs anything: the same rule drives the server and the simulation.
"""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from dytrack_model.narrow import NARROW
from dytrack_model.runtime.graphs import place

Mode = Literal["stages", "whole"]
_WORTH = 0.03
"""Share of the cost that a larger batch has to save; a table is not measured more finely."""
_RATE = 0.02
"""Share of a new frame in what is believed of how many go on."""


class Waiting(Protocol):
    """What is known of a frame that waits."""

    @property
    def graph(self) -> str:
        """Name of the graph that it waits for."""
        ...

    @property
    def rows(self) -> int:
        """Its own batch."""
        ...

    @property
    def deadline(self) -> float:
        """When its answer should be there, in seconds."""
        ...


class Table:
    """Measured milliseconds of each graph by batch; between two sizes a straight line."""

    def __init__(self, milliseconds: Mapping[str, Mapping[int, float]], *, exits: int) -> None:
        self.milliseconds = {name: dict(sorted(by.items())) for name, by in milliseconds.items()}
        self.exits = exits
        self._known: dict[tuple[str, float], float] = {}

    def cost(self, graph: str, rows: float) -> float:
        """Return seconds of a batch; rows may be an expectation, and none cost nothing."""
        key = (graph, round(rows, 2))
        if key not in self._known:
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[key] = self._read(graph, rows) / 1e3
        return self._known[key]

    def _read(self, graph: str, rows: float) -> float:
        if rows <= 0:
            return 0.0
        points = list(self.milliseconds[graph].items())
        (size, ms) = points[0]
        if rows <= size:
            return ms * min(1.0, rows / size) if size > 1 else ms * min(1.0, rows)
        for (low, low_ms), (high, high_ms) in itertools.pairwise(points):
            if rows <= high:
                return low_ms + (high_ms - low_ms) * (rows - low) / (high - low)
        # Beyond the table: several batches of the largest size.
        last, last_ms = points[-1]
        return last_ms * rows / last

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Return plain JSON."""
        return {
            name: {str(size): round(ms, 3) for size, ms in by.items()}
            for name, by in self.milliseconds.items()
        }


class Course(NamedTuple):
    """What an order of batches comes to, in expectation."""

    answers: float
    """Sum over frames of the time until each one's answer, in seconds."""
    end: float
    """When the last one is answered."""


@dataclass
class Planner:
    """Chooses batches.

    Args:
        table: Measured costs.
        most_rows: Largest batch.
        regroup: Whether to regroup where it pays.
    """

    table: Table
    most_rows: int = 8
    regroup: bool = True
    going_on: list[float] = field(default_factory=list)
    """Share of frames that go on from each exit, as seen; the last is 0."""
    regroupings: int = 0
    """Times that frames waited for others. What that brings is the difference between two
    simulations (:mod:`~dytrack_platform.serving.simulation`): a decision by itself saves less than
    it seems to, for frames that wait form larger batches anyway."""

    def __post_init__(self) -> None:
        self.going_on = [0.5] * (self.table.exits - 1) + [0.0]

    def saw(self, exit_index: int, *, went_on: bool) -> None:
        """Take in what one frame did at one exit."""
        if exit_index < self.table.exits - 1:
            believed = self.going_on[exit_index]
            self.going_on[exit_index] = believed + _RATE * (float(went_on) - believed)

    def choose(self, waiting: Sequence[Waiting], now: float) -> list[int]:
        """Return the indices of the frames to run next; all wait for the same graph.

        Args:
            waiting: At least one, in the order of their arrival.
            now: The time of deadlines, in seconds.
        """
        if len(waiting) == 1:
            return [0]
        queues: dict[str, list[int]] = defaultdict(list)
        for index, one in enumerate(waiting):
            queues[one.graph].append(index)
        if len(queues) == 1:
            return self._fill(next(iter(queues.values())), waiting)
        ordered = sorted(queues, key=_depth)
        deepest = ordered[-1]
        first = ordered[0]
        if self.regroup and _same_way(first, deepest):
            survivors = self._fill(queues[deepest], waiting)
            newcomers = self._fill(queues[first], waiting)
            backlog = len(waiting) - len(survivors) - len(newcomers)
            slack = min(waiting[index].deadline for index in survivors) - now
            counts = (len(survivors), len(newcomers))
            if self._pays(deepest, first, counts, backlog, slack):
                return newcomers
        return self._fill(queues[deepest], waiting)

    def _fill(self, indices: list[int], waiting: Sequence[Waiting]) -> list[int]:
        """Take as many as fit into a batch and make it cheaper, the most urgent first.

        Where a batch costs what its frames cost, as on a core of a CPU, the most urgent goes alone:
        it has its answer sooner, and the last one no later.
        """
        ordered = sorted(indices, key=lambda one: waiting[one].deadline)
        if len(ordered) == 1:
            return ordered
        graph = waiting[ordered[0]].graph
        sizes = list(itertools.accumulate(waiting[index].rows for index in ordered))
        fitting = [size for size in sizes if size <= self.most_rows] or sizes[:1]
        each = [self.table.cost(graph, size) / size for size in fitting]
        enough = min(each) * (1 + _WORTH)
        return ordered[: next(k for k, cost in enumerate(each, 1) if cost <= enough)]

    def _pays(
        self, deep: str, shallow: str, counts: tuple[int, int], backlog: int, slack: float
    ) -> bool:
        """Say whether newcomers should catch up with who waits at a deeper stage."""
        survivors, newcomers = counts
        (_, k, narrow), (_, s, _) = place(deep), place(shallow)
        # One after the other.
        own = self.course(0.0, k, survivors, narrow=narrow)
        apart = self.course(own.end, s, newcomers, narrow=narrow)
        # Newcomers first, as far as those that wait; then all together.
        joined = self.course(0.0, s, newcomers, until=k, narrow=narrow)
        arrived = newcomers
        left: float = arrived
        for exit_index in range(s, k):
            left *= self.going_on[exit_index]
        if survivors + left > self.most_rows:
            return False
        together = self.course(joined.end, k, survivors + left, narrow=narrow)
        saved = apart.end - together.end
        sooner = (own.answers + apart.answers) - (joined.answers + together.answers)
        if saved <= _WORTH * apart.end or sooner + backlog * saved <= 0 or together.end > slack:
            return False
        if s == k - 1:  # the batch after this one is the joint one
            self.regroupings += 1
        return True

    def course(
        self,
        began: float,
        stage: int,
        count: float,
        until: int | None = None,
        *,
        narrow: bool = False,
    ) -> Course:
        """Follow a batch through the stages, as many leaving at each exit as usual."""
        answers, now, own = 0.0, began, NARROW if narrow else ""
        for exit_index in range(stage, self.table.exits if until is None else until):
            now += self.table.cost(f"{own}stage{exit_index}", count)
            leaving = count * (1 - self.going_on[exit_index])
            now += self.table.cost(f"{own}head{exit_index}", leaving)
            answers += leaving * now
            count -= leaving
        return Course(answers, now)


def _same_way(first: str, deepest: str) -> bool:
    """Whether frames at two graphs can become one batch: stages over the same region."""
    (kind, _, narrow), (other, _, other_narrow) = place(first), place(deepest)
    return kind == other == "stage" and narrow == other_narrow


def _depth(graph: str) -> tuple[int, int, bool]:
    """Order graphs by how near their frames are to an answer."""
    kind, exit_index, narrow = place(graph)
    # A new target waits for its template, and every frame of it after; heads are cheap, and give
    # answers.
    return ({"stage": 0, "head": 1, "template": 2}[kind], exit_index, narrow)

"""Simulate arrivals on a machine that is known by its table of batch costs alone.

The planner is the server's own. It answers what regrouping would bring on other machines, whose
larger batches cost less for each frame than those of the one at hand.
"""

import random
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dytrack_platform.serving.planning import Mode, Planner, Table


@dataclass(eq=False)
class _Frame:
    arrived: float
    deadline: float
    exit_index: int
    graph: str = "stage0"
    rows: int = 1


class Simulated(NamedTuple):
    """What came of a simulation."""

    frames: int
    busy_s: float
    """Time in which a batch ran."""
    mean_ms: float
    p99_ms: float
    """Of the time from arrival to answer."""
    regroupings: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """Streams of frames."""

    streams: int
    fps: float = 25.0
    seconds: float = 20.0
    shares: tuple[float, ...] = (0.6, 0.2, 0.2)
    """Of frames by exit."""
    deadline_ms: float = 40.0
    seed: int = 0

    def arrivals(self, exits: int) -> list[tuple[float, int, int]]:
        """Draw when frames come: in order, each as seconds, stream and the index of its exit."""
        draw = random.Random(self.seed)
        made: list[tuple[float, int, int]] = []
        for stream in range(self.streams):
            phase = draw.random() / self.fps
            for frame in range(int(self.seconds * self.fps)):
                jitter = draw.gauss(0.0, 0.1) / self.fps
                exit_index = draw.choices(range(exits), self.shares)[0]
                made.append((max(0.0, phase + frame / self.fps + jitter), stream, exit_index))
        return sorted(made)


def simulate(
    table: Table, load: Load, *, mode: Mode = "stages", regroup: bool = True, most_rows: int = 8
) -> Simulated:
    """Run streams against a table of costs."""
    arrivals = deque(load.arrivals(table.exits))
    planner = Planner(table, most_rows, regroup and mode == "stages")
    waiting: list[_Frame] = []
    cohort: list[_Frame] = []
    held: list[_Frame] = []
    now = busy = 0.0
    delays: list[float] = []
    while arrivals or waiting:
        if not waiting:
            now = max(now, arrivals[0][0])
        while arrivals and arrivals[0][0] <= now:
            at, _, exit_index = arrivals.popleft()
            waiting.append(_Frame(at, at + load.deadline_ms / 1e3, exit_index))
        if mode == "whole":
            cohort = [one for one in cohort if one in waiting] or waiting[:most_rows]
            heads = [one for one in cohort if one.graph.startswith("head")]
            first = min(one.graph for one in (heads or cohort))
            chosen = [one for one in cohort if one.graph == first]
        else:
            chosen = [waiting[index] for index in planner.choose(waiting, now)]
        took = table.cost(chosen[0].graph, len(chosen))
        now, busy = now + took, busy + took
        for one in chosen:
            if not _go_on(one, planner):
                waiting.remove(one)
                held.append(one)
        if mode == "stages" or not any(one in waiting for one in cohort):
            delays += [now - one.arrived for one in held]
            held.clear()
    return Simulated(
        frames=len(delays),
        busy_s=busy,
        mean_ms=float(np.mean(delays)) * 1e3,
        p99_ms=float(np.percentile(delays, 99)) * 1e3,
        regroupings=planner.regroupings,
    )


def _go_on(frame: _Frame, planner: Planner) -> bool:
    """Move a frame to its next graph; False where it is answered."""
    if frame.graph.startswith("head"):
        return False
    reached = int(frame.graph.removeprefix("stage"))
    leaves = reached == frame.exit_index
    planner.saw(reached, went_on=not leaves)
    frame.graph = f"head{reached}" if leaves else f"stage{reached + 1}"
    return True

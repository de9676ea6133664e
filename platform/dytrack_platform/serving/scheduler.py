"""One thread that computes for all streams: it takes works, and runs their calls in batches.

With ``stages`` frames that wait for the same graph run together, who leaves is answered at once,
and :mod:`~dytrack_platform.serving.planning` says who goes next. With ``whole`` a batch is made
once, goes through all stages together, and is answered when its last frame is done; it is there to
be compared with.

Audits wait until nothing else does: they are off the critical path by construction.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from dytrack_model.runtime.engine import Call, Work, region
from dytrack_model.runtime.graphs import place
from dytrack_platform.serving.batching import BatchRunner
from dytrack_platform.serving.planning import Mode, Planner

Result = TypeVar("Result")
_MOST_AUDITS = 16
"""Each holds what its frame has computed, a third of a megabyte."""


def _nobody(job: "Job[Any]") -> None:
    """Who waits for a job that is done."""


@dataclass(eq=False)
class Job(Generic[Result]):
    """One work under way."""

    work: Work[Result]
    done: "Callable[[Job[Result]], None]"
    """Called on the scheduler's thread when the work is done, failed or dropped."""
    deadline: float
    """``time.perf_counter()`` by which its answer should be there."""
    audit: bool = False
    """Waits until nothing else does; dropped where too many wait."""
    call: Call = field(init=False)
    """What it waits for."""
    rows: int = 1
    """Batch of its own tensors."""
    entered: float = field(default_factory=time.perf_counter)
    began: float = 0.0
    """When its first graph began to run."""
    stage_s: float = 0.0
    """Time of the batches that it was in."""
    result: Result | None = None
    error: BaseException | None = None
    dropped: bool = False

    @property
    def graph(self) -> str:
        """Name of the graph that it waits for."""
        return self.call.graph

    def finish(self) -> None:
        """Tell who waits, and let go of everything but what came of it.

        Who waits holds the job as what it waited for. If the job went on holding who waits, with
        tensors between them, only the collector of cycles could free them, and it counts objects:
        it does not know that one of them holds a megabyte.
        """
        done, self.done = self.done, _nobody
        self.__dict__.pop("call", None)
        done(self)


@dataclass(frozen=True, slots=True)
class Ran:
    """One batch that ran, for metrics."""

    graph: str
    rows: int
    seconds: float


class Scheduler:
    """Runs works of many streams on one engine.

    Args:
        runner: Runs batches.
        planner: Chooses them.
        mode: How batches are made.
        report: Called with each batch, on the scheduler's thread.
    """

    def __init__(
        self,
        runner: BatchRunner,
        planner: Planner,
        mode: Mode = "stages",
        report: Callable[[Ran], None] | None = None,
    ) -> None:
        self._runner, self.planner, self._mode = runner, planner, mode
        self._report = report or (lambda ran: None)
        self._new: deque[Job[Any]] = deque()
        self._wake = threading.Condition()
        self._waiting: list[Job[Any]] = []
        self._audits: list[Job[Any]] = []
        self._held: list[Job[Any]] = []
        self._cohort: list[Job[Any]] = []
        self._stopping = False
        self.busy_s = 0.0
        """Time in which a batch ran."""
        self.dropped_audits = 0
        self._thread = threading.Thread(target=self._work, name="dytrack-scheduler", daemon=True)
        self._thread.start()

    def submit(self, job: Job[Any]) -> None:
        """Take a work; its callback is called whatever happens.

        Raises:
            RuntimeError: The scheduler was stopped.
        """
        with self._wake:
            if self._stopping:
                raise RuntimeError("the scheduler was stopped")
            self._new.append(job)
            self._wake.notify()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Finish what is under way, then end the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout_s)

    @property
    def waiting(self) -> int:
        """Frames that wait or run."""
        return len(self._new) + len(self._waiting)

    def _work(self) -> None:
        while True:
            self._take_new()
            if not self._waiting and not self._audits:
                with self._wake:
                    if self._new:
                        continue
                    if self._stopping:
                        return
                    self._wake.wait()
                continue
            self._run(self._choose())

    def _take_new(self) -> None:
        while self._new:
            job = self._new.popleft()
            if job.audit and len(self._audits) >= _MOST_AUDITS:
                self.dropped_audits += 1
                job.dropped = True
                job.work.close()
                job.finish()
            elif self._advance(job):
                (self._audits if job.audit else self._waiting).append(job)

    def _choose(self) -> list[Job[Any]]:
        if not self._waiting:
            graph = self._audits[0].graph
            same = [job for job in self._audits if job.graph == graph]
            return same[: self._runner.most_rows]
        if self._mode == "whole":
            return self._whole()
        chosen = self.planner.choose(self._waiting, time.perf_counter())
        return [self._waiting[index] for index in chosen]

    def _whole(self) -> list[Job[Any]]:
        """Take the batch that was made at the first stage through all of them."""
        members = [job for job in self._cohort if job in self._waiting]
        if not members:
            rows = 0
            for job in sorted(self._waiting, key=lambda one: one.deadline):
                if members and rows + job.rows > self._runner.most_rows:
                    break
                members.append(job)
                rows += job.rows
            self._cohort = members
        heads = [job for job in members if place(job.graph)[0] == "head"]
        first = min(job.graph for job in (heads or members))
        return [job for job in members if job.graph == first]

    def _run(self, chosen: list[Job[Any]]) -> None:
        chosen = self._fitting(chosen)
        began = time.perf_counter()
        graph, rows = chosen[0].graph, [job.rows for job in chosen]
        for job in chosen:
            job.began = job.began or began
        error: BaseException | None = None
        try:
            self._runner.run([job.call for job in chosen], rows)
        except Exception as caught:  # noqa: BLE001  (told to whoever waits for it)
            error = caught
        seconds = time.perf_counter() - began
        self.busy_s += seconds
        self._report(Ran(graph, sum(rows), seconds))
        queue = self._audits if chosen[0].audit else self._waiting
        for job in chosen:
            job.stage_s += seconds
            if error is not None:
                job.error = error
                queue.remove(job)
                self._end(job)
            elif not self._advance(job):
                queue.remove(job)
        if self._held and not any(job in self._waiting for job in self._cohort):
            held, self._held = self._held, []
            for job in held:
                job.finish()

    def _fitting(self, chosen: list[Job[Any]]) -> list[Job[Any]]:
        """Leave out what would make a batch too large: searches of lost targets have many rows."""
        kept, rows = [chosen[0]], chosen[0].rows
        for job in chosen[1:]:
            if rows + job.rows <= self._runner.most_rows:
                kept.append(job)
                rows += job.rows
        return kept

    def _advance(self, job: "Job[Any]") -> bool:
        """Go on with a work to its next call; False where it is done."""
        before = None if job.began == 0.0 else job.graph
        try:
            job.call = next(job.work)
        except StopIteration as done:
            job.result = done.value
            self._saw(job, before, None)
            self._end(job)
            return False
        except Exception as error:  # noqa: BLE001  (told to whoever waits for it)
            job.error = error
            self._end(job)
            return False
        self._saw(job, before, job.call.graph)
        tensors = job.call.tensors
        name = "template" if job.graph == "template" else f"{region(tensors)}search"
        job.rows = int(next(iter(tensors[name].shape)))
        return True

    def _saw(self, job: "Job[Any]", before: str | None, after: str | None) -> None:
        kind, exit_index, _ = place(before or "template")
        if not job.audit and kind == "stage":
            went_on = after is not None and place(after)[0] == "stage"
            self.planner.saw(exit_index, went_on=went_on)

    def _end(self, job: "Job[Any]") -> None:
        if self._mode == "whole" and not job.audit and job in self._cohort:
            self._held.append(job)
            return
        job.finish()

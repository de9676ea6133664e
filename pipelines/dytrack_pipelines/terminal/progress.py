"""Progress on the terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dytrack_pipelines.terminal import screen

if TYPE_CHECKING:
    from dytrack_platform.experiment.evaluate.evaluate import Progress as EvaluationProgress
    from dytrack_platform.experiment.ingest import Progress


@contextmanager
def preparation_bar(title: str) -> Iterator[Callable[["Progress"], None]]:
    """Show sequences, frames/s, rejects and time left of a preparation; yields its callback.

    On a terminal it is a bar, in a log a line now and then.
    """
    if not screen.console.is_terminal:
        with screen.live_line() as line:
            line.show(f"{title}: reading annotations")
            yield lambda progress: line.show(f"{title}: {_in_words(progress)}")
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    with Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("sequences  {task.fields[speed]:.0f} frames/s  {task.fields[rejects]} rejects"),
        TimeRemainingColumn(),
        console=screen.console,
    ) as bar:
        task = bar.add_task(f"{title}: reading annotations", total=None, speed=0.0, rejects=0)

        def report(progress: "Progress") -> None:
            bar.update(
                task,
                description=title,
                total=progress.all_sequences,
                completed=progress.sequences,
                speed=progress.frames_per_second,
                rejects=progress.rejects,
            )

        yield report


def _in_words(progress: "Progress") -> str:
    left = "" if progress.seconds_left is None else f", {screen.clock(progress.seconds_left)} left"
    return (
        f"{progress.sequences}/{progress.all_sequences} sequences, "
        f"{progress.frames_per_second:.0f} frames/s, {progress.rejects} rejects{left}"
    )


@contextmanager
def counting_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how many of ``total`` are done, and the time left; yields its callback."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, TimeRemainingColumn(), console=screen.console) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=done)


def progress_line(line: screen.Line) -> Callable[["EvaluationProgress"], None]:
    """Return a callback that shows sequences done, frames/s and time left."""

    def show(progress: "EvaluationProgress") -> None:
        if progress.seconds_left is None:
            speed = "starting"
        else:
            left = screen.clock(progress.seconds_left)
            speed = f"{progress.frames_per_second:.0f} frames/s, {left} left"
        line.show(f"evaluating: {progress.finished}/{progress.total} runs, {speed}")

    return show


def share_line(line: screen.Line) -> Callable[[str, int, int], None]:
    """Return a callback that shows what is under way, the share that is done, and the time left."""
    began = time.monotonic()

    def show(what: str, done: int, total: int) -> None:
        nonlocal began
        left = ""
        if done == 0:
            began = time.monotonic()  # what is prepared says nothing about how fast the rest goes
        else:
            seconds = (time.monotonic() - began) / done * (total - done)
            left = f", {screen.clock(seconds)} left"
        line.show(f"{done / total:.0%}: {what}{left}")

    return show

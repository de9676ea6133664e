"""What a person sees of a search: its trials, the front so far, and the front at the end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dytrack_pipelines.terminal import screen

if TYPE_CHECKING:
    from dytrack_platform.config import SearchConfig
    from dytrack_platform.experiment.search.front.members import Member
    from dytrack_platform.experiment.search.request import Searched, Standing
    from dytrack_platform.experiment.search.trials.record import TrialRecord

_ROWS = 16


@contextmanager
def watching(search: "SearchConfig") -> Iterator[Callable[["Standing"], None]]:
    """Show trials as they go: a live table on a terminal, a line at each end of one in a log."""
    if screen.console.is_terminal:
        with Live(console=screen.console, refresh_per_second=2) as live:
            yield lambda standing: live.update(_drawn(standing))
        return
    told: set[int] = set()

    def say(standing: "Standing") -> None:
        for trial in standing.trials:
            if trial.status != "running" and trial.number not in told:
                told.add(trial.number)
                if standing.fresh:  # those of an earlier run were told then
                    screen.say(f"{_trial_in_words(trial)}; {_in_words(standing)}")

    yield say


def _drawn(standing: "Standing") -> Group:
    drawn = Table(title="trials", title_justify="left")
    for column in ("trial", "changes", "outcome", "epoch", "hypervolume"):
        drawn.add_column(column, justify="left" if column in ("trial", "changes") else "right")
    for trial in standing.trials[-_ROWS:]:
        last = trial.reports[-1] if trial.reports else {}
        volume = f"{trial.hypervolume:.4f}" if trial.hypervolume is not None else ""
        drawn.add_row(
            trial.name, changes_in_words(trial), trial.status, str(last.get("epoch", "")), volume
        )
    front = Table(title="front so far", title_justify="left")
    for column in ("exits", "IoU", "GMACs"):
        front.add_column(column, justify="right")
    points = sorted(standing.points, key=lambda point: point.values["gmacs"])
    for point in points[:: max(1, len(points) // 6)]:
        front.add_row(
            "-".join(map(str, point.exits)),
            f"{point.values['iou']:.3f}",
            f"{point.values['gmacs']:.4f}",
        )
    return Group(drawn, front, Text(_in_words(standing)))


def _in_words(standing: "Standing") -> str:
    kinds = [trial.status for trial in standing.trials]
    left = standing.seconds_left
    clock = "" if left is None else f", {screen.clock(left)} left"
    return (
        f"{len(kinds) - kinds.count('running')}/{standing.budget} trials "
        f"({kinds.count('stopped')} stopped early, {kinds.count('failed')} failed), "
        f"hypervolume {standing.hypervolume:.4f}{clock}"
    )


def _trial_in_words(trial: "TrialRecord") -> str:
    value = "" if trial.hypervolume is None else f", hypervolume {trial.hypervolume:.4f}"
    reason = f": {trial.reason}" if trial.reason else ""
    return f"{trial.name} {trial.status}{value} ({changes_in_words(trial)}){reason}"


def changes_in_words(trial: "TrialRecord") -> str:
    """Return what a trial changes, by the last parts of the keys."""
    parts = []
    for key, value in trial.changes.items():
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        if isinstance(value, list):
            text = "-".join(map(str, value))
        parts.append(f"{key.rpartition('.')[2]} {text}")
    return ", ".join(parts)


def show_front(searched: "Searched") -> None:
    """Print the members of a front, promised and measured side by side."""
    front = searched.front
    columns = ["member (* on the front)", "exits", "IoU", "measured", "AUC", "GMACs", "ms", ""]
    undecided = front.notes["undecided"]
    rows = []
    for member in front.members:
        loop = member.closed_loop or {}
        open_to = undecided.get(member.name)
        rows.append(
            [
                f"{member.name}{' *' if member.on_front else ''}",
                "-".join(map(str, member.exits)),
                f"{member.iou:.3f}",
                f"{loop['iou']:.3f}" if loop else "",
                f"{loop['success_auc']:.3f}" if loop else "",
                f"{member.gmacs:.4f}",
                "" if member.ms is None else f"{member.ms:.2f}",
                "" if open_to is None else f"undecided to {open_to['cheaper']}",
            ]
        )
    title = f"front, hypervolume {front.hypervolume:.4f}"
    screen.table(title, columns, rows)
    failed = [trial for trial in searched.record.trials if trial.status == "failed"]
    for trial in failed:
        screen.say(f"{trial.name} failed: {trial.reason}")


def in_words(member: "Member", why: str) -> str:
    """Return a member in one line; it is picked by what was measured, where anything was."""
    loop = member.closed_loop or {}

    def beside(name: str, digits: int) -> str:
        return f" ({loop[name]:.{digits}f} measured)" if name in loop else ""

    ms = "" if member.ms is None else f", {member.ms:.2f} ms{beside('ms', 2)}"
    return (
        f"{why}: {member.name}, exits {'-'.join(map(str, member.exits))}, "
        f"IoU {member.iou:.3f}{beside('iou', 3)}, "
        f"{member.gmacs:.4f} GMACs{beside('gmacs', 4)}{ms}"
    )

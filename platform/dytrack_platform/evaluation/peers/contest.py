"""Let trackers follow the same sequences, in turns, each in its own process."""

import platform
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from dytrack_platform.datasets.sequence import VideoSequence
from dytrack_platform.errors import ResultError
from dytrack_platform.evaluation.peers.process import (
    Entry,
    Followed,
    Frames,
    TrackerFailed,
    TrackerMissing,
    TrackerProcess,
    followed,
)


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What came of one tracker."""

    entry: Entry
    about: str = ""
    """What ran it."""
    absent: str = ""
    """Why it took no part: not found, or it does not start."""
    runs: dict[str, Followed] = field(default_factory=dict)
    """By sequence; all of them, unless it took no part."""

    @property
    def problems(self) -> dict[str, str]:
        """By sequence: why it did not reach the end."""
        return {name: run.problem for name, run in self.runs.items() if run.problem}


def hold(
    entries: Sequence[Entry],
    sequences: Sequence[VideoSequence],
    report: Callable[[str, int, int], None] | None = None,
    *,
    patience_s: float = 300.0,
) -> list[Outcome]:
    """Run all trackers over all sequences.

    Sequence by sequence all trackers take their turn, and each sequence begins with another one:
    what else the machine does meets all of them alike, so that their speeds can be compared.

    Args:
        entries: The trackers.
        sequences: With a usable first box each, under different names.
        report: Called before each start and each turn with what is under way, how many frames are
            over (each counts once for each tracker), and of how many.
        patience_s: How long one frame may take before its tracker is given up.

    Returns:
        One for each entry, in order. The failure of one never ends the others.

    Raises:
        ResultError: Two sequences have the same name.
    """
    names = [sequence.name for sequence in sequences]
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise ResultError(f"two sequences are called {twins[0]}; rename one of them")
    outcomes = [Outcome(entry=entry) for entry in entries]
    done, total = 0, len(entries) * sum(len(sequence) for sequence in sequences)
    with ExitStack() as stack:
        processes = [
            stack.enter_context(TrackerProcess(entry, patience_s=patience_s)) for entry in entries
        ]
        for process, outcome in zip(processes, outcomes, strict=True):
            if report is not None:
                report(f"starting {process.entry}", 0, total)
            try:
                process.start()
            except (TrackerMissing, TrackerFailed) as error:
                outcome.absent = str(error)
        for turn, sequence in enumerate(sequences):
            with Frames(sequence) as source:
                for place in range(len(entries)):
                    index = (turn + place) % len(entries)
                    if report is not None:
                        report(f"{entries[index]} on {sequence.name}", done, total)
                    _take_turn(processes[index], outcomes[index], sequence, source)
                    done += len(sequence)
    return outcomes


def _take_turn(
    process: TrackerProcess, outcome: Outcome, sequence: VideoSequence, source: dict[str, Any]
) -> None:
    if outcome.absent:
        return
    try:
        run = process.follow(sequence, source)
    except (TrackerMissing, TrackerFailed) as error:
        # It failed before and does not start any more: it owes this sequence.
        run = followed(sequence, [], str(error))
    outcome.about = process.about
    outcome.runs[sequence.name] = run


@cache
def processor() -> str:
    """Name this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()

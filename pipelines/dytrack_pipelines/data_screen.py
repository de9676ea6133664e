"""How data is shown on the terminal."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dytrack_pipelines import screen

if TYPE_CHECKING:
    from dytrack_platform.datasets.sequence import Fault
    from dytrack_platform.datasets.statistics import Statistics

_BAR = 30
_MOST_CLASSES = 12
_PLACES_TOLD = 100
"""A log hears of progress after each so many sequences, and not more often than a line allows."""


def show_statistics(title: str, found: "Statistics") -> None:
    """Print counts, and histograms of target sizes and motion."""
    from dytrack_platform.datasets.statistics import MOTION_EDGES, SIZE_EDGES

    shortest, median, longest = found.lengths
    share = found.visible / max(found.frames, 1)
    screen.say(title)
    screen.say(
        f"{found.sequences} sequences, {found.frames} frames, target visible on {share:.1%}; "
        f"{shortest} to {longest} frames a sequence, median {median}"
    )
    _histogram("target size, pixels", SIZE_EDGES, found.sizes)
    if any(found.motions):
        _histogram("motion a frame, target sizes", MOTION_EDGES, found.motions)
    for name, counts in (("attribute", found.attributes), ("class", found.classes)):
        if counts:
            rows = [[key, str(count)] for key, count in list(counts.items())[:_MOST_CLASSES]]
            left = len(counts) - len(rows)
            screen.table("", [name, "sequences"], rows)
            if left > 0:
                screen.say(f"and {left} more")


def _histogram(title: str, edges: Sequence[float], counts: Sequence[int]) -> None:
    most, total = max(max(counts), 1), max(sum(counts), 1)
    rows = [
        [
            f"{low:g} to {high:g}" if high < float("inf") else f"{low:g} and more",
            str(count),
            f"{count / total:.1%}",
            ("#" * round(_BAR * count / most)).ljust(_BAR),
        ]
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    screen.table("", [title, "frames", "share", ""], rows)


def show_faults(found: Iterable[tuple[str, list["Fault"]]]) -> int:
    """Print faults as they are found and how many there are so far; give their number."""
    places = count = 0
    with screen.live_line() as line:
        for _, faults in found:
            places += 1
            for fault in faults:
                count += 1
                frame = "" if fault.frame is None else f" frame {fault.frame}"
                screen.say(f"{fault.sequence}{frame}: {fault.reason}".lstrip(": "))
            if screen.console.is_terminal or places % _PLACES_TOLD == 0:
                line.show(f"{places} checked, {count} faults")
        line.show(f"{places} checked, {count} faults")
    return count

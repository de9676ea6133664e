"""Tables and lists on the terminal: what data hold, what evaluations and scores found."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dytrack_pipelines.terminal import screen

if TYPE_CHECKING:
    from dytrack_platform.datasets.prepared.statistics import Statistics
    from dytrack_platform.datasets.sequence import Fault

_BAR = 30
_MOST_CLASSES = 12
_PLACES_TOLD = 100
"""A log hears of progress after each so many sequences, and not more often than a line allows."""
_COLUMNS = {
    "success_auc": ("AUC", 3),
    "precision20": ("P", 3),
    "norm_precision20": ("NP", 3),
    "ao": ("AO", 3),
    "sr50": ("SR.5", 3),
    "fps": ("fps", 0),
    "ms_p50": ("ms p50", 2),
    "gmacs": ("GMACs", 3),
}


def show_points(summary: Mapping[str, Any]) -> None:
    """Print the table of points and baselines."""
    rows = []
    for point in (*summary["points"], *summary["baselines"]):
        shares = " ".join(f"{share:.0%}" for share in point["exit_share"])
        cells = [_cell(point[key], digits) for key, (_, digits) in _COLUMNS.items()]
        rows.append([point["name"], *cells, shares])
    title = (
        f"{summary['dataset']}: {summary['sequences']} sequences, {summary['frames']} frames, "
        f"by {summary['protocol']}"
    )
    screen.table(
        title, ["point", *(name for name, _ in _COLUMNS.values()), exits_title(summary)], rows
    )
    if "protocol_reason" in summary:
        screen.say(f"protocol {summary['protocol']}: {summary['protocol_reason']}")


def exits_title(summary: Mapping[str, Any]) -> str:
    """Head the column of exit shares with the blocks that the exits follow."""
    blocks = " / ".join(str(block) for block in summary["exit_blocks"])
    return f"exits after block {blocks}" if blocks else "exits"


def show_scores(protocol: str, trackers: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the table of ``dytrack score``."""
    known = [
        key
        for key in (
            *_COLUMNS,
            "sr75",
            "mao",
            "robustness",
            "accuracy",
            "eao",
            "precision",
            "recall",
            "f",
        )
        if any(scores.get(key) is not None for scores in trackers.values())
    ]
    titles = [_COLUMNS[key][0] if key in _COLUMNS else key for key in known]
    rows = [
        [name, *(_cell(scores.get(key), 4) for key in known)] for name, scores in trackers.items()
    ]
    screen.table(f"by {protocol}", ["tracker", *titles], rows)


def show_unusual(lines: Sequence[str], most: int = 20) -> None:
    """Print what was unusual, or the first of it."""
    for line in lines[:most]:
        screen.say(f"unusual: {line}")
    if len(lines) > most:
        screen.say(f"and {len(lines) - most} more unusual things: --json-file FILE holds them all")


def _cell(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def show_statistics(title: str, found: "Statistics") -> None:
    """Print counts, and histograms of target sizes and motion."""
    from dytrack_platform.datasets.prepared.statistics import MOTION_EDGES, SIZE_EDGES

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


def show_faults(found: Iterable[tuple[str, list["Fault"]]]) -> list["Fault"]:
    """Print faults as they are found and how many there are so far; returns them."""
    places, seen = 0, list["Fault"]()
    with screen.live_line() as line:
        for _, faults in found:
            places += 1
            for fault in faults:
                seen.append(fault)
                frame = "" if fault.frame is None else f" frame {fault.frame}"
                screen.say(f"{fault.sequence}{frame}: {fault.reason}".lstrip(": "))
            if screen.console.is_terminal or places % _PLACES_TOLD == 0:
                line.show(f"{places} checked, {len(seen)} faults")
        line.show(f"{places} checked, {len(seen)} faults")
    return seen

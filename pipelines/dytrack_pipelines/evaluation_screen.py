"""What a person sees of evaluations and scores on the terminal."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dytrack_pipelines import screen

if TYPE_CHECKING:
    from dytrack_platform.experiment.evaluate import Progress

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


def key_values(options: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Read ``KEY=VALUE`` options.

    Raises:
        ConfigurationError: One has no ``=``.
    """
    from dytrack_platform.errors import ConfigurationError

    pairs = []
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise ConfigurationError(f"--tracker-option {option}: expected KEY=VALUE")
        pairs.append((key, value))
    return tuple(pairs)


def write_exports(out: Path, layout: str, points: Sequence[str]) -> list[Path]:
    """Write each point's results as ``exports/POINT.zip`` or ``exports/POINT/``."""
    from dytrack_platform.evaluation import exports

    suffix = ".zip" if layout in exports.ARCHIVES else ""
    return [
        exports.export(
            layout, exports.stored_results(out, point), out / "exports" / f"{point}{suffix}"
        )
        for point in points
    ]


def progress_line(line: screen.Line) -> Callable[["Progress"], None]:
    """Give a callback that shows sequences done, frames/s and time left."""
    began = time.monotonic()

    def show(progress: "Progress") -> None:
        elapsed = time.monotonic() - began
        left = elapsed / progress.finished * (progress.total - progress.finished)
        line.show(
            f"evaluating: {progress.finished}/{progress.total} runs, "
            f"{progress.frames_per_second:.0f} frames/s, {screen.clock(left)} left"
        )

    return show


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
    screen.table(title, ["point", *(name for name, _ in _COLUMNS.values()), "exits"], rows)


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
        screen.say(f"and {len(lines) - most} more unusual things: --json FILE holds them all")


def _cell(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"

"""What a person sees: one live line, tables, and single sentences on standard error."""

import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from json import dumps
from pathlib import Path

from rich.console import Console, JustifyMethod
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from dytrack_model.errors import InputError

LOG_HEAD = 'log of {"generator": "dytrack"}'
"""First line of a log, by which :mod:`dytrack_platform.storage.outputs` knows it."""
if sys.stdout is None:  # the shell closed it
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  (stays open)
# A log has no width of its own; a table needs one that fits it.
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


class Line:
    """A line that replaces itself on a terminal, and is repeated now and then in a log."""

    def __init__(self, live: Live | None, every_s: float) -> None:
        self._live = live
        self._every_s = every_s
        self._printed = float("-inf")
        self._last = ""

    def show(self, text: str) -> None:
        """Show the newest state."""
        self._last = text
        if self._live is not None:
            self._live.update(Text(text))
        elif time.monotonic() - self._printed >= self._every_s:
            self._printed = time.monotonic()
            self.finish()

    def finish(self) -> None:
        """Print the newest state once more, so that a log ends with it."""
        if self._last and self._live is None:
            console.print(Text(self._last))
            sys.stdout.flush()
            self._last = ""


@contextmanager
def live_line(every_s: float = 10.0) -> Iterator[Line]:
    """Yield a line to show progress on; in a log it appears every ``every_s`` seconds."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4) as live:
            yield Line(live, every_s)
    else:
        line = Line(None, every_s)
        yield line
        line.finish()


def say(text: str) -> None:
    """Print a sentence."""
    console.print(Text(text))
    sys.stdout.flush()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column and unnamed ones are left-aligned, the others numbers.

    Where the screen is too narrow for it each row becomes a block, one value a line: a number of
    which a part is missing is worse than none.
    """
    drawn = Table(title=Text(title), title_justify="left")
    for index, column in enumerate(columns):
        justify: JustifyMethod = "left" if index == 0 or not column else "right"
        drawn.add_column(Text(column), justify=justify, no_wrap=True)
    for row in rows:
        drawn.add_row(*map(Text, row))
    needed = Measurement.get(console, console.options.update_width(10_000), drawn).maximum
    if needed <= console.width:
        console.print(drawn)
    else:
        _blocks(title, columns, rows)


def _blocks(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if title:
        console.print(Text(title, "italic"))
    for row in rows:
        console.print(Text(f"{columns[0]} {row[0]}".strip(), "bold"))
        for column, value in zip(columns[1:], row[1:], strict=True):
            if value.strip():
                console.print(Text(f"  {column} {value.strip()}".rstrip()))


def clock(seconds: float) -> str:
    """Return a duration as 1:05 or 2:01:05."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def raw(text: str) -> None:
    """Pass on a piece of a log as it is."""
    sys.stdout.write(text)
    sys.stdout.flush()


@contextmanager
def people_read_errors() -> Iterator[None]:
    """Print what is for people on standard error: a program reads standard output."""
    before, console.stderr = console.stderr, True
    try:
        yield
    finally:
        console.stderr = before


def json(value: object) -> None:
    """Print JSON and nothing else, for programs; what is not finite becomes null."""
    raw(dumps(_finite(value), indent=2, default=str) + "\n")


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Append what the platform has to tell, with its time, to a file.

    Where the body is refused before there is anything to tell, no file is left, and no folder.
    """
    new = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f"{LOG_HEAD}\n"
    if not path.exists() or not path.stat().st_size:
        path.write_text(head, encoding="utf-8")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("dytrack_platform")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    except InputError:
        handler.close()
        if path.read_text(encoding="utf-8") == head:
            path.unlink()
            with suppress(OSError):  # something else is there
                for folder in new:
                    folder.rmdir()
        raise
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()

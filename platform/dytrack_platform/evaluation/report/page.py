"""One HTML file that needs no network: text, tables, and plots that stay interactive."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from dytrack_platform.storage.atomic import write_atomically

Figure = dict[str, Any]
"""A plotly figure as JSON: ``data`` and ``layout``."""

DASH = "\N{EN DASH}"
"""Stands for an unknown number."""

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#666666")
"""Colours that are told apart with any kind of colour vision (Okabe and Ito, 2008)."""

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One part of a page, under a heading."""

    title: str
    body: Markup = field(default_factory=Markup)
    """HTML that :func:`part` made."""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """Plots by an identifier that is unique on the page; two stand side by side."""
    note: str = ""
    """How to read it, as plain text."""


def colour(index: int) -> str:
    """Return the colour of an exit or a curve."""
    return PALETTE[index % len(PALETTE)]


def number(value: float | None, digits: int = 3) -> str:
    """Show a number, or a dash where it is unknown."""
    return DASH if value is None else f"{value:.{digits}f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, identifier: str = "") -> Markup:
    """Build a table; a click on a heading sorts it."""
    return part("table", list(header), list(rows), identifier)


def unordered(lines: Sequence[str], *, empty: str) -> Markup:
    """Build a list of lines, or say that there is none."""
    return part("unordered", list(lines), empty)


def part(name: str, *values: object) -> Markup:
    """Fill one of the macros of ``parts.html``; what is no :class:`Markup` is escaped there."""
    macro = getattr(_TEMPLATES.get_template("parts.html").module, name)
    return Markup(macro(*values))


def write_page(
    path: Path, *, title: str, lead: str, sections: Sequence[Section], data: Mapping[str, Any]
) -> Path:
    """Write the page.

    Args:
        path: The HTML file.
        title: Heading of the page.
        lead: Plain text under it.
        sections: In order.
        data: What the page shows, embedded as JSON under the id ``data`` for programs to read.

    Raises:
        StorageError: The file cannot be written.
    """
    figures: dict[str, Figure] = {}
    for section in sections:
        figures |= section.figures
    page = _TEMPLATES.get_template("page.html").render(
        title=title,
        lead=lead,
        sections=sections,
        plotly=Markup(get_plotlyjs()),
        figures=_embedded(figures),
        data=_embedded(data),
    )
    write_atomically(path, page)
    return path


def _embedded(value: object) -> Markup:
    """Return JSON that cannot end the script element it stands in."""
    return Markup(json.dumps(value, allow_nan=False).replace("<", "\\u003c"))

"""One HTML file that needs no network: text, tables, and plots that stay interactive."""

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from dytrack_platform.storage.atomic import write_atomically

Figure = dict[str, Any]
"""A plotly figure as JSON: ``data`` and ``layout``."""

DASH = "\N{EN DASH}"
"""Stands for an unknown number."""

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#666666")
"""Colours that are told apart with any kind of colour vision (Okabe and Ito, 2008)."""

_TEMPLATE = Path(__file__).with_name("page.html")


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One part of a page, under a heading."""

    title: str
    body: str = ""
    """HTML; what comes from outside must have gone through :func:`text`."""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """Plots by an identifier that is unique on the page; two stand side by side."""
    note: str = ""
    """How to read it, as plain text."""


def colour(index: int) -> str:
    """Return the colour of an exit or a curve."""
    return PALETTE[index % len(PALETTE)]


def text(value: object) -> str:
    """Escape anything for HTML."""
    return html.escape(str(value), quote=True)


def number(value: float | None, digits: int = 3) -> str:
    """Show a number, or a dash where it is unknown."""
    return DASH if value is None else f"{value:.{digits}f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, identifier: str = "") -> str:
    """Build a table whose cells are HTML already; a click on a heading sorts it."""
    head = "".join(f"<th>{text(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    name = f' id="{text(identifier)}"' if identifier else ""
    return (
        f'<div class="scroll"><table{name}><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def unordered(lines: Iterable[str]) -> str:
    """Build a list of plain text lines."""
    return "<ul>" + "".join(f"<li>{text(line)}</li>" for line in lines) + "</ul>"


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
    parts = []
    for section in sections:
        figures |= section.figures
        places = "".join(f'<div class="plot" id="{text(name)}"></div>' for name in section.figures)
        note = f'<p class="note">{text(section.note)}</p>' if section.note else ""
        plots = f'<div class="plots">{places}</div>' if places else ""
        parts.append(
            f"<section><h2>{text(section.title)}</h2>{note}{section.body}{plots}</section>"
        )
    page = _TEMPLATE.read_text(encoding="utf-8")
    for slot, content in {
        "title": text(title),
        "lead": text(lead),
        "sections": "\n".join(parts),
        "plotly": get_plotlyjs(),
        "figures": _embedded(figures),
        "data": _embedded(data),
    }.items():
        page = page.replace(f"<!-- {slot} -->", content)
    write_atomically(path, page)
    return path


def _embedded(value: object) -> str:
    """Return JSON that cannot end the script element it stands in."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")

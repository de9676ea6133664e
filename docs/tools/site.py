"""Hooks of MkDocs: links that leave the documentation become names, decisions list themselves."""

import os
import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)\s#]*)[^)]*\)")


def on_config(config: Any) -> Any:  # noqa: ANN401  (MkDocs has no types)
    """Add every page of docs/decisions to the navigation."""
    folder = Path(config["docs_dir"]) / "decisions"
    pages = [f"decisions/{page.name}" for page in sorted(folder.glob("*.md"))]
    config["nav"].append({"Decisions": pages})
    return config


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:  # noqa: ANN401
    """Show a file of the repository as its path: the site does not hold it."""
    docs = Path(config["docs_dir"])
    here = (docs / page.file.src_uri).parent

    def shown(found: re.Match[str]) -> str:
        place = Path(os.path.normpath(here / found[2]))
        if place.is_relative_to(docs):
            return found[0]
        path = place.relative_to(docs.parent)
        return f"{found[1]}" if found[1].strip("`") == str(path) else f"{found[1]} (`{path}`)"

    return _LINK.sub(shown, markdown)

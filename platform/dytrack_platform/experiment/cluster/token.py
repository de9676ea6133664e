"""The token that opens a Ray cluster; looked for without Ray, which reads its settings once."""

import os
from pathlib import Path


def token() -> str:
    """Return the token of clusters that this machine has, as Ray looks for it; empty for none.

    ``RAY_AUTH_TOKEN``, the file that ``RAY_AUTH_TOKEN_PATH`` names, ``~/.ray/auth_token``.
    """
    if given := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return given
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    try:
        file = Path(named) if named else Path.home() / ".ray" / "auth_token"
        return file.read_text(encoding="utf-8").strip()
    except (OSError, RuntimeError, ValueError):  # a home that is missing or closed holds none
        return ""

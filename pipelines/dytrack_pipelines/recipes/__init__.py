"""Recipes that come with the package: ``dytrack train demo`` finds ``demo.yaml`` here."""

from difflib import get_close_matches
from pathlib import Path

from dytrack_platform.errors import ConfigurationError

FOLDER = Path(__file__).parent


def find(name: str) -> Path:
    """Return the file of a recipe named by path, or by the name of one that comes with dytrack.

    Raises:
        ConfigurationError: It is neither; the recipe that was probably meant is named.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = FOLDER / f"{name}.yaml"
    if known.is_file():
        return known
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        return path  # a file's name; reading it says that it is missing
    near = get_close_matches(name, shipped(), n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(shipped())}"
    raise ConfigurationError(f"{name}: no such recipe; give a YAML file, or a name; {hint}")


def shipped() -> list[str]:
    """Name the recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def purpose(name: str) -> str:
    """Return the first sentence of a recipe's header."""
    said: list[str] = []
    for line in (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("#").strip()
        if not line.startswith("#") or not text:
            break
        said.append(text)
    return f"{' '.join(said).split('. ')[0].rstrip('.')}."

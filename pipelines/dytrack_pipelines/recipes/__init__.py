"""Recipes that come with the package: ``dytrack train demo`` finds ``demo.yaml`` here."""

from pathlib import Path

FOLDER = Path(__file__).parent


def find(name: str) -> Path:
    """Return the file of a recipe named by path, or by the name of one that comes with dytrack."""
    path = Path(name)
    shipped = FOLDER / f"{name}.yaml"
    return shipped if not path.is_file() and shipped.is_file() else path


def shipped() -> list[str]:
    """Name the recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))

"""Folders: those that come with the package, and how one is written whole."""

import shutil
import tempfile
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from dytrack_model.errors import ConfigurationError

SHIPPED = {
    "reference": Path(__file__).parent / "reference",
    "reference-tiny": Path(__file__).parent / "reference_tiny",
}
"""Trackers that come with the package, by the name that stands for a folder wherever one is
asked for; a folder of one's own that is called so is written ``./reference``."""
_UNFINISHED = ".unfinished"


def write_folder(folder: Path, write: Callable[[Path], None]) -> Path:
    """Write files into a folder; others that lie there stay.

    A new folder appears as a whole. In one that is there each file is replaced by renaming, so that
    a crash at any moment leaves every file as it was or as it becomes. Several writers of one
    folder do not meet: each works in a hidden folder of its own.

    Args:
        folder: The folder.
        write: Writes the files into the empty folder that it is given.

    Raises:
        ConfigurationError: The path is that of a file.
        OSError: There is no space or no permission.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"{folder}: is a file; name a folder")
    folder = folder.resolve()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigurationError(f"{folder}: {error.filename} is a file, not a folder") from error
    # Beside the folder, or inside of it where nothing may be written beside (``.`` of a mount).
    place = folder if folder.exists() else folder.parent
    beside = Path(tempfile.mkdtemp(dir=place, prefix=f".{folder.name}.", suffix=_UNFINISHED))
    try:
        write(beside)
        for file in beside.iterdir():
            if file.is_file():
                file.chmod(0o644)  # safetensors' files are for their owner alone, too
        if not folder.exists():
            beside.chmod(0o755)  # mkdtemp's folders are for their owner alone
            with suppress(OSError):  # somebody else made it meanwhile: then file by file
                return beside.rename(folder)
        for file in sorted(beside.iterdir()):
            file.replace(folder / file.name)
        return folder
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def require_own(folder: Path, own: Collection[str], what: str) -> None:
    """Refuse to write into a folder that holds what dytrack did not write there.

    Args:
        folder: The folder; it need not exist.
        own: Names of files that may be replaced.
        what: What would be written, for the message.

    Raises:
        ConfigurationError: The folder holds something else, or the path is that of a file.
    """
    if folder.is_dir():
        others = sorted(path.name for path in folder.iterdir() if path.name not in own)
        if others:
            shown = ", ".join(others[:3]) + (", …" if others[3:] else "")
            raise ConfigurationError(
                f"{folder}: holds other things ({shown}); name a folder of its own for {what}"
            )
    elif folder.exists():
        raise ConfigurationError(f"{folder}: is a file; name a folder for {what}")

"""What ``dytrack track`` is to write: refused at once where it would destroy something."""

from collections.abc import Mapping, Sequence
from pathlib import Path

STANDARD_OUTPUT = Path("-")
"""In place of a file: rows go to whoever reads standard output, as soon as they are known."""
LINES = ("--csv", "--jsonl", "--mot")
"""Options whose files grow by lines, frame by frame."""


def check_files(outputs: Mapping[str, Path | None], inputs: Sequence[str | Path | None]) -> None:
    """Refuse outputs that would destroy something; see :func:`check_outputs`."""
    from dytrack_platform.storage.outputs import check_outputs

    check_outputs(outputs, [one for one in inputs if one is not None])


def check_labels(folder: Path | None) -> None:
    """Refuse a folder that holds anything but the labels of an earlier run."""
    from dytrack_pipelines.media.yolo import YOLO_MARK
    from dytrack_platform.storage.outputs import check_folder

    if folder is not None:
        check_folder("--yolo", folder, [file.name for file in folder.glob("*")], [YOLO_MARK])


def check_recording(path: Path | None) -> None:
    """Refuse a recording of Rerun where that is not installed."""
    from dytrack_platform.interop.rerun_recording import require_rerun

    if path is not None:
        require_rerun()


def spread(files: Mapping[str, Path | None], targets: list[str]) -> dict[str, Path | None]:
    """Return every file that will be there: LaSOT's text is one for each target."""
    from dytrack_pipelines.media.results import LasotFile

    found = dict(files)
    path = found.pop("--lasot", None)
    if path is not None:
        for name, place in LasotFile.places(path, targets).items():
            found[f"--lasot ({name})"] = place
    return found


def require_one_stream(outputs: Mapping[str, Path | None], *, as_json: bool) -> None:
    """Refuse what cannot go to standard output, and more than one that would.

    Raises:
        ConfigurationError: Several want it, or one that is not written line by line.
    """
    from dytrack_platform.errors import ConfigurationError

    streamed = [option for option, path in outputs.items() if path == STANDARD_OUTPUT]
    for option in streamed:
        if option not in LINES:
            raise ConfigurationError(
                f"{option} -: is not written line by line; only {', '.join(LINES)} can go to "
                "standard output, name a file"
            )
    wanted = [*(f"{option} -" for option in streamed), *(["--json"] if as_json else [])]
    if streamed and len(wanted) > 1:
        raise ConfigurationError(
            f"{' and '.join(wanted)}: standard output takes one of them; name files for the others"
        )

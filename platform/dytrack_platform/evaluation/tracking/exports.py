"""Write results in the forms that servers and toolkits take.

=============== ============================================================ ================
``got10k``      zip: ``SEQ/SEQ_001.txt`` and ``SEQ/SEQ_time.txt``            GOT-10k's server
``trackingnet`` zip: ``SEQ.txt`` at its root                                 TrackingNet's
``text``        ``SEQ.txt``, commas                                          LaSOT, OTB, UAV123
``pytracking``  ``SEQ.txt`` and ``SEQ_time.txt``, tabs                       pytracking, OSTrack
=============== ============================================================ ================
"""

import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from dytrack_platform.errors import ConfigurationError, ResultError, StorageError
from dytrack_platform.evaluation.scoring.result_files import format_boxes
from dytrack_platform.evaluation.tracking.protocol import SequenceResult
from dytrack_platform.evaluation.tracking.results import read_result
from dytrack_platform.storage.atomic import replacing, write_atomically

Entry = tuple[str, str]
"""Name of a file and its text."""


def got10k_files(result: SequenceResult) -> Iterable[Entry]:
    """One run, three decimals, one time per frame (the server takes up to three runs)."""
    folder = result.name
    yield f"{folder}/{folder}_001.txt", format_boxes(result.boxes_xywh, 3)
    yield f"{folder}/{folder}_time.txt", _times(result)


def trackingnet_files(result: SequenceResult) -> Iterable[Entry]:
    """Boxes at the root of the archive; the devkit rounds them itself."""
    yield f"{result.name}.txt", format_boxes(result.boxes_xywh, 4)


def text_files(result: SequenceResult) -> Iterable[Entry]:
    """Boxes with every digit."""
    yield f"{result.name}.txt", format_boxes(result.boxes_xywh)


def pytracking_files(result: SequenceResult) -> Iterable[Entry]:
    """Tabs, and times beside; whole numbers there, but fractions are read just as well."""
    yield f"{result.name}.txt", format_boxes(result.boxes_xywh).replace(",", "\t")
    yield f"{result.name}_time.txt", _times(result)


def _times(result: SequenceResult) -> str:
    # Toolkits average 1 / time over positive times: a rounded time must not become zero.
    return "".join(f"{max(value, 1e-8):.8f}\n" for value in result.times_s)


Layout = Callable[[SequenceResult], Iterable[Entry]]
ARCHIVES: dict[str, Layout] = {"got10k": got10k_files, "trackingnet": trackingnet_files}
FOLDERS: dict[str, Layout] = {"text": text_files, "pytracking": pytracking_files}


def export(layout: str, results: Sequence[SequenceResult], out: Path) -> Path:
    """Write results of one tracker.

    Args:
        layout: A key of :data:`ARCHIVES` or :data:`FOLDERS`.
        results: One per sequence.
        out: The zip file, or the folder.

    Returns:
        ``out``.

    Raises:
        ConfigurationError: There is no such layout.
        ResultError: A result has NaN, which a server would refuse after the upload.
        StorageError: The place cannot be written.
    """
    for result in results:
        if not np.isfinite(result.boxes_xywh).all():
            raise ResultError(f"{result.name}: has NaN boxes, which {layout} does not take")
    if layout in FOLDERS:
        for result in results:
            for name, content in FOLDERS[layout](result):
                write_atomically(out / name, content)
        return out
    check_layout(layout)
    try:
        with replacing(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for result in results:
                for name, content in ARCHIVES[layout](result):
                    archive.writestr(name, content)
    except OSError as error:
        raise StorageError(f"{out}: cannot be written: {error.strerror}") from error
    return out


def check_layout(layout: str) -> None:
    """Refuse what is no layout of results.

    Raises:
        ConfigurationError: It is none.
    """
    known = (*ARCHIVES, *FOLDERS)
    if layout not in known:
        raise ConfigurationError(f"format: must be one of {', '.join(known)}, got {layout!r}")


def stored_results(evaluation: Path, point: str) -> list[SequenceResult]:
    """Read every finished sequence of a point.

    Args:
        evaluation: The folder that ``dytrack evaluate`` wrote.
        point: Name of an operating point, baseline or other tracker.

    Raises:
        ResultError: There is none of this name, or a result is damaged.
    """
    folder = evaluation / "results" / point
    names = sorted(path.stem for path in folder.glob("*.json"))
    if not names:
        known = ", ".join(sorted(p.name for p in (evaluation / "results").glob("*"))) or "none"
        raise ResultError(f"{folder}: no finished result; points there: {known}")
    return [read_result(evaluation, point, name) for name in names]


def export_points(evaluation: Path, layout: str, points: Sequence[str]) -> list[Path]:
    """Write each point's results as ``exports/POINT.zip`` or ``exports/POINT/``.

    Raises:
        ConfigurationError: There is no such layout.
        ResultError: A point has no result, or one has NaN.
        StorageError: The place cannot be written.
    """
    suffix = ".zip" if layout in ARCHIVES else ""
    return [
        export(
            layout,
            stored_results(evaluation, point),
            evaluation / "exports" / f"{point}{suffix}",
        )
        for point in points
    ]

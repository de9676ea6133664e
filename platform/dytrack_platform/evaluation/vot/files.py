"""VOT's layout on disk: sequences with regions and tags, results by tracker and experiment."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.datasets.io.regions import UNKNOWN, Rectangle, Region, Special, parse_region
from dytrack_platform.errors import ResultError
from dytrack_platform.evaluation.scoring.result_files import read_numbers, read_text
from dytrack_platform.evaluation.vot.binary import read_binary


@dataclass(frozen=True, kw_only=True)
class VotSequence:
    """Annotation of one sequence."""

    name: str
    folder: Path
    regions: tuple[Region, ...]
    """One per frame; what the file lacks at its end is unknown."""
    size: tuple[int, int] | None
    """Width and height, or None where neither the description nor a frame says."""

    def __len__(self) -> int:
        return len(self.regions)

    @cached_property
    def anchors(self) -> tuple[list[int], list[int]]:
        """Frames (from 0) where forward and backward runs of the multistart experiment begin.

        Raises:
            ResultError: There are none.
        """
        values = read_numbers(self.folder / "anchor.value")
        forward = np.flatnonzero(values > 0).tolist()
        backward = np.flatnonzero(values < 0).tolist()
        if not forward and not backward:
            raise ResultError(f"{self.folder / 'anchor.value'}: names no frame to start from")
        return forward, backward


def read_sequences(root: Path) -> list[VotSequence]:
    """Read the sequences of a workspace: ``root`` or ``root/sequences`` holds ``list.txt``.

    Raises:
        ResultError: A file is missing or holds something else.
    """
    folder = next((f for f in (root, root / "sequences") if (f / "list.txt").is_file()), None)
    if folder is None:
        raise ResultError(f"{root}: no list.txt here or in sequences/; give VOT's folder")
    return [_read_sequence(folder / name) for name in read_text(folder / "list.txt").split()]


def _read_sequence(folder: Path) -> VotSequence:
    path = folder / "groundtruth.txt"
    regions = read_regions(path)
    about = _describe(folder / "sequence")
    length = int(about.get("length", len(regions)))
    regions += [Special(UNKNOWN)] * (length - len(regions))
    size = (int(about["width"]), int(about["height"])) if "width" in about else None
    return VotSequence(name=folder.name, folder=folder, regions=tuple(regions[:length]), size=size)


def _describe(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    pairs = (line.partition("=") for line in read_text(path).splitlines())
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}


def read_regions(path: Path) -> list[Region]:
    """Read one region per line.

    Raises:
        ResultError: The file is missing or a line is no region.
    """
    regions: list[Region] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            try:
                regions.append(parse_region(line))
            except ValueError as error:
                raise ResultError(f"{path}, line {number}: {error}") from None
    return regions


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One result file: what a tracker gave from one start."""

    path: Path
    regions: tuple[Region, ...]
    confidence: NDArray[np.float64]
    """(N,) 0 where the tracker gave none."""


def experiment_folder(tracker: Path, names: Sequence[str]) -> Path:
    """Find the folder of an experiment's results.

    Raises:
        ResultError: None of the names is there.
    """
    for name in names:
        if (tracker / name).is_dir():
            return tracker / name
    raise ResultError(f"{tracker}: has no results of {' or '.join(names)}")


def read_repetitions(experiment: Path, sequence: VotSequence) -> list[Run]:
    """Read ``SEQ/SEQ_001.txt`` and its repetitions.

    Raises:
        ResultError: There is none, or one has another length than the sequence.
    """
    folder = experiment / sequence.name
    pattern = re.compile(re.escape(sequence.name) + r"_\d{3}")
    stems = sorted(
        {p.stem for p in folder.glob("*.*") if _is_result(p) and pattern.fullmatch(p.stem)}
    )
    if not stems:
        raise ResultError(f"{folder}: no result; expected {sequence.name}_001.txt or .bin")
    return [read_run(folder / stem, len(sequence)) for stem in stems]


def _is_result(path: Path) -> bool:
    return path.suffix in (".txt", ".bin")


def read_run(stem: Path, frames: int) -> Run:
    """Read one run, binary or text, and its confidence where that is there.

    Args:
        stem: The file without ``.bin`` or ``.txt``; where both are there the first counts.
        frames: Frames that the run must have.

    Raises:
        ResultError: The file is missing, damaged, or has another length.
    """
    binary, plain = stem.with_name(f"{stem.name}.bin"), stem.with_name(f"{stem.name}.txt")
    path = binary if binary.is_file() else plain
    regions = read_binary(path) if path == binary else read_regions(path)
    if len(regions) != frames:
        raise ResultError(
            f"{path}: {len(regions)} results for {frames} frames; VOT's toolkit stops on that"
        )
    return Run(path=path, regions=tuple(regions), confidence=_confidence(path, frames))


def unusual_results(experiment: Path, sequences: Sequence[VotSequence]) -> list[str]:
    """Tell what is odd about an experiment's files, in words: extra sequences, NaN, no size."""
    known = {sequence.name for sequence in sequences}
    extra = sorted(f.name for f in experiment.iterdir() if f.is_dir() and f.name not in known)
    lines = []
    if extra:
        more = "" if len(extra) == 1 else f" and {len(extra) - 1} more"
        lines.append(f"not of this benchmark and not scored: {extra[0]}{more}")
    for name in sorted(known):
        for path in sorted(p for p in (experiment / name).glob("*.*") if _is_result(p)):
            regions = read_binary(path) if path.suffix == ".bin" else read_regions(path)
            broken = [k for k, region in enumerate(regions, start=1) if _is_broken(region)]
            if broken:
                lines.append(
                    f"{name}: {path.name} has {len(broken)} regions with NaN or a negative size, "
                    f"first in frame {broken[0]}: they overlap nothing"
                )
    return lines


def _is_broken(region: Region) -> bool:
    if isinstance(region, Special):
        return region.from_nan
    return isinstance(region, Rectangle) and not (region.w >= 0 and region.h >= 0)


def _confidence(path: Path, frames: int) -> NDArray[np.float64]:
    """Read one number per line; an empty line, or a file that ends early, means none."""
    values = np.zeros(frames)
    side = path.with_name(f"{path.stem}_confidence.value")
    if not side.is_file():
        return values
    for frame, line in enumerate(read_text(side).splitlines()[:frames]):
        if line.strip():
            try:
                values[frame] = float(line)
            except ValueError:
                raise ResultError(f"{side}, line {frame + 1}: expected a number") from None
    return values

"""What every exit said of the same frames: enough to score any placement and any thresholds.

Dimensions: N frames with a usable box, E exits.
"""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dytrack_model.depth_value import AMBIGUITY
from dytrack_platform.config.search import PointRule
from dytrack_platform.errors import DataError, StorageError
from dytrack_platform.storage.atomic import replacing
from dytrack_platform.training.closed_loop import Film, Tracked

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExitCache:
    """Outputs of all exits, frame by frame."""

    depths: tuple[int, ...]
    """(E,) depths of the exits in blocks."""
    predicted: Floats
    """(N, E) predicted IoU."""
    iou: Floats
    """(N, E) true IoU."""
    sequence: Integers
    """(N,) number of each frame's sequence; a sequence's frames lie together and in order."""
    names: tuple[str, ...]
    """Names of the sequences."""
    boxes_xywh: Floats | None = None
    """(N, E, 4) boxes in pixels before corrections; None where frames do not follow each other."""
    truth_xywh: Floats | None = None
    """(N, 4) true boxes, with ``boxes_xywh``."""
    clear: Floats | None = None
    """(N, E) how clear each exit's answer is, 1 for one that is not ambiguous at all, 0 for one
    that could not be more so; with ``boxes_xywh``."""

    def scores(self, rule: PointRule) -> Floats:
        """Return (N, E) what thresholds of a rule are compared with.

        Raises:
            DataError: The frames do not follow each other, and the rule needs that.
        """
        if rule == "thresholds":
            return self.predicted
        if self.clear is None:
            raise DataError(
                "search.rule: ambiguity is read off sequences that are followed, and these are "
                "pairs; take thresholds"
            )
        return self.clear

    def halves(self) -> tuple[Flags, Flags]:
        """Return (N,) frames to choose on and frames to score on: every other sequence by name.

        Neighbours in name come from one source, so that both halves have some of each.

        Raises:
            DataError: There are fewer than two sequences.
        """
        present = np.asarray(np.unique(self.sequence))
        if present.size < 2:
            raise DataError(
                "search: thresholds are chosen on one half of the sequences and scored on the "
                f"other, so two are needed at least, got {list(self.names)}; name more data"
            )
        by_name = sorted(present.tolist(), key=lambda number: self.names[number])
        choosing = np.isin(self.sequence, by_name[::2])
        return choosing, ~choosing

    def part(self, which: Flags) -> "ExitCache":
        """Return the frames ``which`` (N,)."""
        return replace(
            self,
            predicted=self.predicted[which],
            iou=self.iou[which],
            sequence=self.sequence[which],
            boxes_xywh=None if self.boxes_xywh is None else self.boxes_xywh[which],
            truth_xywh=None if self.truth_xywh is None else self.truth_xywh[which],
            clear=None if self.clear is None else self.clear[which],
        )

    def uncorrected(self) -> "ExitCache":
        """Return it without boxes, so that no corrections are simulated."""
        return replace(self, boxes_xywh=None, truth_xywh=None)

    def save(self, path: Path) -> None:
        """Write it as one NumPy archive.

        Raises:
            StorageError: The file cannot be written.
        """
        arrays = {"predicted": self.predicted, "iou": self.iou}
        if self.boxes_xywh is not None and self.truth_xywh is not None:
            arrays |= {"boxes_xywh": self.boxes_xywh, "truth_xywh": self.truth_xywh}
        if self.clear is not None:
            arrays["clear"] = self.clear
        try:
            with replacing(path) as beside, beside.open("wb") as file:
                np.savez_compressed(
                    file,
                    depths=np.array(self.depths),
                    sequence=self.sequence,
                    names=np.array(self.names),
                    **arrays,  # type: ignore[arg-type]
                )
        except OSError as error:
            raise StorageError(f"{path}: cannot be written: {error.strerror}") from error

    @classmethod
    def load(cls, path: Path) -> "ExitCache":
        """Read what :meth:`save` wrote.

        Raises:
            StorageError: The file is missing or damaged.
        """
        try:
            # Opened here: NumPy leaves a file open that turns out not to be an archive.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                return cls(
                    depths=tuple(int(depth) for depth in kept["depths"]),
                    predicted=kept["predicted"],
                    iou=kept["iou"],
                    sequence=kept["sequence"],
                    names=tuple(str(name) for name in kept["names"]),
                    boxes_xywh=kept.get("boxes_xywh"),
                    truth_xywh=kept.get("truth_xywh"),
                    clear=kept.get("clear"),
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise StorageError(f"{path}: cannot be read: {error}; remove it") from error


def from_tracks(
    depths: Sequence[int], films: Sequence[Film], tracked: Sequence[Tracked]
) -> ExitCache:
    """Gather what every exit said along tracks; frames without truth are left out.

    The tracks were followed without corrections, so that any policy's can be simulated.
    """
    parts = []
    for number, (film, track) in enumerate(zip(films, tracked, strict=True)):
        usable = np.asarray(np.isfinite(track.iou).all(axis=1), np.bool_)
        parts.append(
            (
                track.predicted_iou[usable],
                track.iou[usable],
                np.full(np.count_nonzero(usable), number, np.int64),
                track.exit_boxes_xywh[usable],
                film.boxes_xywh[1 : 1 + len(usable)][usable],
                clearness(track.shown[usable]),
            )
        )
    predicted, iou, sequence, boxes, truth, clear = (
        np.concatenate(group) for group in zip(*parts, strict=True)
    )
    return ExitCache(
        depths=tuple(depths),
        predicted=predicted,
        iou=iou,
        sequence=sequence,
        names=tuple(film.name for film in films),
        boxes_xywh=boxes,
        truth_xywh=truth,
        clear=clear,
    )


def clearness(shown: Floats) -> Floats:
    """Return how clear answers (...) are, in [0, 1], from what heads show (..., 3)."""
    return np.asarray(1.0 - shown @ np.array(AMBIGUITY) / sum(AMBIGUITY), np.float64)


def from_pairs(
    depths: Sequence[int], predicted: Floats, iou: Floats, sequences: Sequence[str]
) -> ExitCache:
    """Gather what every exit said of validation pairs.

    Args:
        depths: (E,) depths of the exits.
        predicted: (E, N) predicted IoU.
        iou: (E, N) true IoU.
        sequences: (N,) the sequence that each pair is from.
    """
    names = sorted(set(sequences))
    numbers = {name: number for number, name in enumerate(names)}
    sequence = np.array([numbers[name] for name in sequences], dtype=np.int64)
    order = np.argsort(sequence, kind="stable")
    return ExitCache(
        depths=tuple(depths),
        predicted=np.asarray(predicted.T[order], np.float64),
        iou=np.asarray(iou.T[order], np.float64),
        sequence=sequence[order],
        names=tuple(names),
    )

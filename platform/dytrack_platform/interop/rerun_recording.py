"""What a tracker saw and said, as a recording of Rerun: frames, boxes and curves on one time line.

Needs the package ``rerun-sdk`` (extra ``interop``). Open the file with ``rerun out.rrd``.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.errors import RuntimeMissingError, StorageError
from dytrack_platform.storage.atomic import beside

_QUALITY = 80
"""JPEG quality of the frames: a recording holds every one of them."""


class Seen(Protocol):
    """What is known of one target in one frame."""

    @property
    def box_xywh(self) -> NDArray[np.float64]:
        """(4,) pixels."""

    @property
    def depth(self) -> int:
        """Blocks that were run; 0 for a given box."""

    @property
    def predicted_iou(self) -> float:
        """The tracker's confidence."""

    @property
    def lost(self) -> bool:
        """Whether the target is believed lost; it then has no box."""


def require_rerun() -> None:
    """Raise RuntimeMissingError where Rerun is not installed."""
    if find_spec("rerun") is None:
        raise RuntimeMissingError("--rerun: needs pip install 'dytrack[interop]'")


class RerunRecording:
    """One ``.rrd`` file; it takes its place when the body of the ``with`` ends, however it ends.

    Args:
        path: The file.

    Raises:
        RuntimeMissingError: Rerun is not installed.
        StorageError: The folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        require_rerun()
        import rerun

        self._rerun, self._path, self._frame = rerun, path, 0
        self._beside = beside(path)
        self._recording = rerun.RecordingStream("dytrack")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._beside.touch()
        except OSError as error:
            raise StorageError(
                f"{path}: cannot be written ({error.strerror}): choose another folder"
            ) from error
        self._recording.save(str(self._beside))

    def write(self, pixels: NDArray[np.uint8], targets: Mapping[str, Seen]) -> None:
        """Add the next frame, (H, W, 3) uint8 red first, and what is known of its targets."""
        rerun, to = self._rerun, self._recording
        to.set_time("frame", sequence=self._frame)
        self._frame += 1
        to.log("video", rerun.Image(pixels).compress(jpeg_quality=_QUALITY))
        for name, seen in targets.items():
            place = f"video/{name}"
            if seen.lost:
                to.log(place, rerun.Clear(recursive=False))
            else:
                box, label = [list(map(float, seen.box_xywh))], [f"{name}: exit {seen.depth}"]
                form = rerun.Box2DFormat.XYWH
                to.log(place, rerun.Boxes2D(array=box, array_format=form, labels=label))
            to.log(f"predicted_iou/{name}", rerun.Scalars(float(seen.predicted_iou)))
            to.log(f"exit/{name}", rerun.Scalars(float(seen.depth)))
            to.log(f"lost/{name}", rerun.Scalars(float(seen.lost)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._recording.flush()
        self._recording.disconnect()
        self._beside.replace(self._path)

"""Several trackers on the same frames, side by side: a labelled panel for each of them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]

HEAD = 26
"""Height in pixels of the line above a panel that names its tracker."""
_WIDEST = 1920
"""Of the whole picture; frames are made smaller to fit, and never larger than they are."""
_NARROWEST = 240
"""Of a panel, so that its line can be read; smaller frames are enlarged."""
_COLOURS_RGB = (
    (46, 204, 113),
    (241, 196, 15),
    (52, 152, 219),
    (231, 76, 60),
    (187, 134, 252),
    (230, 126, 34),
)
_GREY_RGB, _WHITE_RGB, _GROUND = (150, 150, 150), (255, 255, 255), 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Track:
    """What one tracker said of a sequence."""

    name: str
    boxes_xywh: Floats
    """(N, 4) pixels; NaN where it gave no answer any more."""
    lost: Floats
    """(N,) 1 where it calls the target lost, else 0, or NaN where it does not say."""

    def box(self, frame: int) -> Floats | None:
        """Return its box (4,) of a frame, or None where it gave none."""
        box = self.boxes_xywh[frame]
        return box if np.isfinite(box).all() else None

    def remark(self, frame: int) -> str:
        """Return what is to be said beside its name: nothing while it follows."""
        if self.box(frame) is None:
            return "gave up"
        return "lost" if self.lost[frame] == 1 else ""


def columns(panels: int) -> int:
    """Return how many panels stand in a row: rows are at most one fewer than columns."""
    return max(1, math.ceil(math.sqrt(panels))) if panels != 3 else 3


def scale(width: int, panels: int) -> float:
    """Return by what frames ``width`` pixels wide are scaled, so that a row of panels fits."""
    fitting = _WIDEST / (width * columns(panels))
    return min(fitting, max(1.0, _NARROWEST / width))


def draw(frame: Pixels, tracks: Sequence[Track], index: int, truth: Floats | None = None) -> Pixels:
    """Draw one frame as all trackers saw it.

    Args:
        frame: (H, W, 3) uint8 RGB; it is not changed.
        tracks: The trackers, in the order of the panels, row by row.
        index: Position of the frame in the sequence; boxes of frame 0 were given.
        truth: (4,) x, y, w, h in pixels: drawn thin and white, where it is known.

    Returns:
        (rows * (h + HEAD), columns * w, 3) uint8 RGB, each side even, as video formats want it.
    """
    factor = scale(frame.shape[1], len(tracks))
    width, height = (max(2, round(side * factor)) for side in frame.shape[1::-1])
    small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    across = columns(len(tracks))
    down = math.ceil(len(tracks) / across)
    size = (down * (height + HEAD), across * width)
    canvas = np.full((size[0] + size[0] % 2, size[1] + size[1] % 2, 3), _GROUND, np.uint8)
    for place, track in enumerate(tracks):
        top, left = place // across * (height + HEAD), place % across * width
        panel = canvas[top : top + height + HEAD, left : left + width]
        panel[HEAD:] = small
        _draw_panel(panel, track, index, colour(place), factor, truth)
    return canvas


def colour(place: int) -> tuple[int, int, int]:
    """Return the colour of the tracker in a panel, red first."""
    return _COLOURS_RGB[place % len(_COLOURS_RGB)]


def _draw_panel(
    panel: Pixels,
    track: Track,
    index: int,
    own: tuple[int, int, int],
    factor: float,
    truth: Floats | None,
) -> None:
    """Draw onto (HEAD + h, w, 3), a view of the whole picture."""
    picture, remark = panel[HEAD:], track.remark(index)
    if truth is not None:
        _rectangle(picture, truth * factor, _WHITE_RGB, 1)
    box = track.box(index)
    if box is not None:
        _rectangle(picture, box * factor, _GREY_RGB if remark else own, 2)
    cv2.rectangle(panel, (6, 7), (17, 18), own, cv2.FILLED)
    label = f"{track.name}  {remark}" if remark else track.name
    cv2.putText(panel, label, (24, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.48, _WHITE_RGB, 1, cv2.LINE_AA)


def _rectangle(
    picture: Pixels, box_xywh: Floats, ink: tuple[int, int, int], thickness: int
) -> None:
    # OpenCV keeps 16 bits of a corner: a box that ran away would come back on the other side.
    x, y, w, h = np.clip(box_xywh, -10_000, 10_000)
    corners = (round(float(x)), round(float(y))), (round(float(x + w)), round(float(y + h)))
    for colours, wide in (((0, 0, 0), thickness + 2), (ink, thickness)):  # an outline shows it
        cv2.rectangle(picture, *corners, colours, wide)


def film(
    frames: Iterable[Pixels | None], tracks: Sequence[Track], truth_xywh: Floats
) -> Iterable[Pixels]:
    """Draw every frame of a sequence; one that does not decode repeats the picture before.

    Args:
        frames: (H, W, 3) uint8 RGB each, or None.
        tracks: The trackers.
        truth_xywh: (N, 4) pixels, NaN where it is not known.
    """
    last: Pixels | None = None
    for index, frame in enumerate(frames):
        last = frame if frame is not None else last
        if last is not None:
            truth = truth_xywh[index] if np.isfinite(truth_xywh[index]).all() else None
            yield draw(last, tracks, index, truth)

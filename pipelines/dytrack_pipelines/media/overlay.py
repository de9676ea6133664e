"""Draw what the tracker did: a box coloured by exit, and a time line of exits below the frame."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dytrack_model.target_state import TargetState

Pixels = NDArray[np.uint8]

STRIP = 28
"""Height of the time line in pixels."""

_COLOURS_RGB = (
    (46, 204, 113),
    (241, 196, 15),
    (230, 126, 34),
    (231, 76, 60),
    (155, 89, 182),
    (52, 152, 219),
)
_LOST_RGB = (128, 128, 128)
_INK_RGB = (255, 255, 255)


def exit_colour(exit_index: int, lost: bool = False) -> tuple[int, int, int]:
    """Return the colour of an exit, red first: green is shallow; grey means lost."""
    return _LOST_RGB if lost else _COLOURS_RGB[exit_index % len(_COLOURS_RGB)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """What is drawn for one frame, and written as one row of the table."""

    box_xywh: NDArray[np.float64]
    """(4,) pixels."""
    exit_index: int = 0
    """Exit that gave the box, from 0."""
    depth: int = 0
    """Blocks that were run; 0 for the box that the user gave."""
    predicted_iou: float = 1.0
    """The tracker's confidence."""
    state: TargetState = TargetState.TRACKING
    """What the tracker believes of its target."""

    @property
    def lost(self) -> bool:
        """Whether the tracker believes that it lost the target."""
        return self.state is TargetState.LOST


def draw(
    frame: Pixels, history: Sequence[Mark], exits: int, others: Mapping[str, Mark] | None = None
) -> Pixels:
    """Draw one frame of the result.

    Args:
        frame: (H, W, 3) uint8 RGB; it is not changed.
        history: Marks of every frame so far, this one last; its target has the time line.
        exits: Number of exits, for the height of the time line's steps.
        others: This frame's marks of further targets, by name.

    Returns:
        (H + STRIP, W, 3) uint8 RGB.
    """
    height, width = frame.shape[:2]
    canvas = np.zeros((height + STRIP, width, 3), dtype=np.uint8)
    canvas[:height] = frame
    for name, mark in (others or {}).items():
        _draw_box(canvas, mark, height, f"{name}: ")
    _draw_box(canvas, history[-1], height)
    canvas[height:] = _time_line(history, exits, width)
    return canvas


def _draw_box(canvas: Pixels, mark: Mark, height: int, name: str = "") -> None:
    """Draw one target onto (H + STRIP, W, 3)."""
    width = canvas.shape[1]
    colour = exit_colour(mark.exit_index, mark.lost)
    x, y, w, h = (round(float(value)) for value in mark.box_xywh)
    cv2.rectangle(canvas, (x, y), (x + w, y + h), colour, 2)
    label = name + (f"exit {mark.depth}  {mark.predicted_iou:.2f}" if mark.depth else "start")
    if mark.state is not TargetState.TRACKING:
        label += f"  {mark.state}"
    above = y - 6 if y >= 18 else min(y + h + 14, height - 4)
    place = (max(0, min(x, width - 90)), above)
    for ink, thickness in (((0, 0, 0), 3), (colour, 1)):  # an outline keeps it readable
        cv2.putText(
            canvas, label, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, ink, thickness, cv2.LINE_AA
        )


def _time_line(history: Sequence[Mark], exits: int, width: int) -> Pixels:
    """Draw a bar for each of the last ``width`` frames: the deeper the exit, the taller."""
    strip = np.full((STRIP, width, 3), 24, dtype=np.uint8)
    shown = history[-width:]
    for column, mark in enumerate(shown):
        tall = round((STRIP - 4) * (mark.exit_index + 1) / exits)
        strip[STRIP - 2 - tall : STRIP - 2, column] = exit_colour(mark.exit_index, mark.lost)
    if len(shown) < width:
        strip[:, len(shown)] = _INK_RGB
    return strip

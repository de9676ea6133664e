"""Make the README's picture: ``python docs/tools/pictures.py VIDEO PARETO.png OUT.jpg``.

VIDEO is what ``dytrack track --out`` wrote (or several, joined by commas), PARETO.png what
``dytrack evaluate`` left. docs/tutorial.md has the commands.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

_COLUMNS = 4
_WIDTH = 1280
_GAP = 6


def filmstrip(video: Path, count: int = _COLUMNS) -> NDArray[np.uint8]:
    """Return evenly spaced frames side by side, (H, 1280, 3) uint8 BGR."""
    film = cv2.VideoCapture(str(video))
    total = int(film.get(cv2.CAP_PROP_FRAME_COUNT))
    side = (_WIDTH - _GAP * (count - 1)) // count
    shown = []
    for number in np.linspace(total * 0.08, total - 2, count).astype(int):
        film.set(cv2.CAP_PROP_POS_FRAMES, int(number))
        read, frame = film.read()
        if not read:
            raise SystemExit(f"{video}: frame {number} of {total} cannot be read")
        height = round(frame.shape[0] * side / frame.shape[1])
        shown.append(cv2.resize(frame, (side, height), interpolation=cv2.INTER_AREA))
        shown.append(np.full((height, _GAP, 3), 255, np.uint8))
    strip = np.concatenate(shown[:-1], axis=1)
    return cv2.copyMakeBorder(
        strip, 0, _GAP, 0, _WIDTH - strip.shape[1], cv2.BORDER_CONSTANT, value=(255, 255, 255)
    ).astype(np.uint8)


def main(videos: str, pareto: str, out: str) -> None:
    """Put filmstrips above the front and write the picture."""
    rows = [filmstrip(Path(video)) for video in videos.split(",")]
    front = cv2.imread(pareto)
    if front is None:
        raise SystemExit(f"{pareto}: cannot be read; dytrack evaluate writes it")
    width = 820
    small = cv2.resize(
        front, (width, round(front.shape[0] * width / front.shape[1])), interpolation=cv2.INTER_AREA
    )
    left = (_WIDTH - width) // 2
    rows.append(
        cv2.copyMakeBorder(
            small, 0, 0, left, _WIDTH - width - left, cv2.BORDER_CONSTANT, value=(255, 255, 255)
        ).astype(np.uint8)
    )
    cv2.imwrite(out, np.concatenate(rows), [cv2.IMWRITE_JPEG_QUALITY, 82])


if __name__ == "__main__":
    main(*sys.argv[1:])

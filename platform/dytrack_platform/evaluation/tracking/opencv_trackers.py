"""OpenCV's trackers under the same protocol, so that a comparison is one command.

OpenCV wants blue first and whole pixels, and gives whole pixels back. Turning the channels round
is charged to the tracker: about a millisecond for a full-HD frame. MIL and its like draw random
numbers from the clock, so two runs of them differ.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dytrack_platform.datasets.sequence import Pixels
from dytrack_platform.errors import ConfigurationError, RuntimeMissingError
from dytrack_platform.evaluation.tracking.protocol import StaticBox, Step, Tracker

_CONTRIB = ("CSRT", "KCF")

# The files of each network, by the name of the parameter that takes them.
_FILES: dict[str, tuple[str, ...]] = {
    "MIL": (),
    "Nano": ("backbone", "neckhead"),
    "Vit": ("net",),
    "DaSiamRPN": ("model", "kernel_cls1", "kernel_r1"),
}


class OpenCVTracker:
    """One of OpenCV's trackers; where it loses the target it keeps the last box.

    Args:
        name: MIL, Nano, Vit, DaSiamRPN, or with an OpenCV built with contrib CSRT and KCF.
        options: Paths of the ONNX files of a network, by parameter name.

    Raises:
        ConfigurationError: There is no tracker of this name, or an option is missing or unknown.
        RuntimeMissingError: The installed OpenCV was built without this tracker.
    """

    exit_gmacs = (float("nan"),)

    def __init__(self, name: str, options: Mapping[str, str] | None = None) -> None:
        self._create = _creator(name, dict(options or {}))
        self._tracker = self._create()
        self._box = np.zeros(4)

    def start(self, image: Pixels, box_xywh: NDArray[np.float64]) -> None:
        """Take the target from the first frame."""
        height, width = image.shape[:2]
        x, y, w, h = (round(float(value)) for value in box_xywh)
        x, y = min(max(x, 0), width - 2), min(max(y, 0), height - 2)
        w, h = min(max(w, 2), width - x), min(max(h, 2), height - y)
        self._tracker = self._create()
        self._tracker.init(_blue_first(image), (x, y, w, h))
        self._box = np.array(box_xywh, dtype=np.float64)

    def step(self, image: Pixels) -> Step:
        """Find the target in the next frame."""
        found, box = self._tracker.update(_blue_first(image))
        if found:
            self._box = np.array(box, dtype=np.float64)
        return Step(box_xywh=self._box.copy())


def _blue_first(image: Pixels) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image[..., ::-1])


def _creator(name: str, options: dict[str, str]) -> Callable[[], Any]:
    """Return a function that makes a fresh tracker: OpenCV's cannot be started twice."""
    if name in _CONTRIB:
        create = getattr(cv2, f"Tracker{name}_create", None)
        if create is None:
            raise RuntimeMissingError(
                f"cv2:{name}: OpenCV {cv2.__version__} was built without its contrib trackers; "
                "install opencv-contrib-python-headless, or choose cv2:MIL"
            )
        return create  # type: ignore[no-any-return]
    if name not in _FILES:
        known = ", ".join(f"cv2:{known}" for known in (*_FILES, *_CONTRIB))
        raise ConfigurationError(f"tracker: cv2:{name} is unknown; there are {known}")
    for option in options:
        if option not in _FILES[name]:
            expected = ", ".join(_FILES[name]) or "no option"
            raise ConfigurationError(f"tracker option {option}: cv2:{name} takes {expected}")
    for option in _FILES[name]:
        path = options.get(option)
        if path is None:
            raise ConfigurationError(
                f"tracker option {option}: cv2:{name} needs the path of its ONNX file; "
                f"name it as cv2:{name},{option}=FILE"
            )
        if not Path(path).is_file():
            raise ConfigurationError(f"tracker option {option}: {path}: no such file")
    parameters = getattr(cv2, f"Tracker{name}_Params")()
    for option in _FILES[name]:
        setattr(parameters, option, options[option])
    create_with = getattr(cv2, f"Tracker{name}_create")
    return lambda: create_with(parameters)


def with_options(text: str) -> tuple[str, dict[str, str]]:
    """Split ``cv2:Nano,backbone=FILE,neckhead=FILE`` into the tracker's name and its options.

    A comma inside of a file's name stays in it, unless what follows looks like another option.

    Raises:
        ConfigurationError: Something after the name is not ``KEY=FILE``, or a key stands twice.
    """
    name, *parts = re.split(r",(?=[A-Za-z_]\w*=)", text)
    options: dict[str, str] = {}
    for part in parts:
        key, _, value = part.partition("=")
        if key in options or not value:
            raise ConfigurationError(f"tracker {text}: expected each option once, as KEY=FILE")
        options[key] = value
    if "," in name:
        raise ConfigurationError(f"tracker {text}: expected NAME,KEY=FILE,…")
    return name, options


def make_third_party(name: str, options: Mapping[str, str] | None = None) -> Tracker:
    """Make a tracker that is not ours: ``static`` or ``cv2:NAME``.

    Raises:
        ConfigurationError: There is no such tracker, or its options are wrong.
        RuntimeMissingError: The installed OpenCV lacks it.
    """
    if name == "static":
        return StaticBox()
    kind, colon, inner = name.partition(":")
    if kind == "cv2" and colon:
        return OpenCVTracker(inner, options)
    raise ConfigurationError(f"tracker: must be static or cv2:NAME, got {name!r}")

"""The dynamic tracker: one transformer with several exits, and what it takes to run one.

The door for using a tracker::

    from dytrack_model import Tracker

    tracker = Tracker.load("runs/demo")        # a tracker's folder, a run's, or an export's
    tracker.start(frame, box_xywh)             # an array, red first unless told, or a path
    prediction = tracker.step(frame)           # box_xywh, predicted_iou, exit, state, network_ms

Importing this package costs nothing: what a name needs, such as torch, is loaded when the name is
used (PEP 562).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dytrack_model.images import RGB
    from dytrack_model.online import Tracker
    from dytrack_model.prediction import Prediction

__all__ = ["RGB", "Prediction", "Tracker"]


def __getattr__(name: str) -> object:
    if name == "RGB":
        from dytrack_model.images import RGB

        return RGB
    if name == "Prediction":
        from dytrack_model.prediction import Prediction

        return Prediction
    if name == "Tracker":
        from dytrack_model.online import Tracker

        return Tracker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

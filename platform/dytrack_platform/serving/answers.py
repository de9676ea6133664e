"""What one frame is answered, and how it is counted."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dytrack_model.prediction import Prediction
from dytrack_platform.serving.messages import Refused
from dytrack_platform.serving.metrics import Metrics
from dytrack_platform.serving.targets import Target


@dataclass(frozen=True, slots=True)
class Answer:
    """What one frame is answered."""

    text: str
    errors: tuple[Refused, ...] = ()
    """What could not be done on the way."""


@dataclass(frozen=True, slots=True)
class Found:
    """Where one target is in a frame."""

    prediction: Prediction | None
    """None for a target that was started with this frame."""
    stage_s: float
    waited_s: float


def row(target: Target, found: Found) -> dict[str, Any]:
    """Return what a client is told of a target, as plain JSON."""
    prediction = found.prediction
    if prediction is None:
        box, said, state, depth = target.box_xywh, 1.0, "tracking", 0
    else:
        box = tuple(prediction.box_xywh.tolist())
        said, state, depth = prediction.predicted_iou, str(prediction.state), prediction.exit
    values: dict[str, Any] = {
        "box": [round(value, 6) for value in box],
        "predicted_iou": round(said, 6),
        "state": state,
        "exit": depth,
    }
    if target.paced is not None:
        values["point"] = target.paced.name
    return values


def count(metrics: Metrics, found: Iterable[Found], ms: Mapping[str, float], dropped: int) -> None:
    """Count a frame, the milliseconds of its parts, and the exits and states of its targets."""
    metrics.frames.inc()
    metrics.dropped.inc(dropped)
    for part, value in ms.items():
        metrics.parts.labels(part).observe(value)
    for one in found:
        if one.prediction is not None:
            metrics.exits.labels(str(one.prediction.exit)).inc()
            metrics.states.labels(str(one.prediction.state)).inc()

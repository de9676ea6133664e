"""The published tracker as MLflow loads it: this file is stored as code, the weights beside it.

``predict`` takes frames (N, H, W, 3) uint8 RGB and one box ``x, y, w, h`` in the first of them,
and follows it at the operating point ``balanced`` (the deepest, where there is none).
"""

from typing import TypedDict

import mlflow
import numpy as np
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from numpy.typing import NDArray

from dytrack_model import Tracker, checkpoint
from dytrack_model.policy import find_point


class Predictions(TypedDict):
    """One value for each frame; the first repeats what was given."""

    boxes: NDArray[np.float64]
    exits: NDArray[np.int64]
    """Depth of the exit in blocks; 0 for the first frame."""
    predicted_ious: NDArray[np.float64]


class PublishedTracker(PythonModel):
    """Follows a target through a stack of frames."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the tracker that was logged as the artefact ``tracker``."""
        self._saved = checkpoint.load(context.artifacts["tracker"])

    def predict(
        self,
        context: PythonModelContext,
        model_input: dict[str, NDArray[np.generic]],
        params: dict[str, object] | None = None,
    ) -> Predictions:
        """Follow the box of the first frame through the others."""
        frames, box = model_input["frames"], np.asarray(model_input["box"]).reshape(-1)[:4]
        names = [point.name for point in self._saved.points]
        name = "balanced" if "balanced" in names else names[-1]
        network = self._saved.network
        point = find_point(self._saved.points, name, network.exit_count)
        tracker = Tracker(network, point.policy())
        found = list(tracker.track(np.asarray(frames, dtype=np.uint8), box))
        return {
            "boxes": np.array([box, *(one.box_xywh for one in found)], dtype=np.float64),
            "exits": np.array([0, *(one.exit for one in found)], dtype=np.int64),
            "predicted_ious": np.array([1.0, *(one.predicted_iou for one in found)]),
        }


mlflow.models.set_model(PublishedTracker())

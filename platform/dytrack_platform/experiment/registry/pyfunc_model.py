"""The published tracker as MLflow loads it: this file is stored as code, the weights beside it.

``predict`` takes frames (N, H, W, 3) uint8 RGB and one box ``x, y, w, h`` in the first of them,
and follows it. Two parameters choose the operating point and the runtime. The tracker's own code
travels with the version, so that it loads where dytrack is not installed.
"""

from typing import TypedDict

import mlflow
import numpy as np
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from numpy.typing import NDArray

from dytrack_model import Tracker, checkpoint
from dytrack_model.policy import FULL, find_point
from dytrack_model.runtime import build
from dytrack_model.runtime.engine import Engine


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
        self._engines: dict[str, Engine] = {}

    # A hint on the input would have MLflow check frames one by one; the signature says more.
    def predict(  # type: ignore[no-untyped-def]
        self,
        context: PythonModelContext,
        model_input,  # noqa: ANN001
        params: dict[str, object] | None = None,
    ) -> Predictions:
        """Follow the box of the first frame through the others.

        ``params`` may name a ``point`` (``balanced``, or full depth where there is none) and a
        ``runtime`` (``torch``).
        """
        wanted = params or {}
        saved, runtime = self._saved, str(wanted.get("runtime") or "torch")
        frames = np.asarray(model_input["frames"], dtype=np.uint8)
        box = np.asarray(model_input["box"]).reshape(-1)[:4]
        known = [point.name for point in saved.points]
        name = str(wanted.get("point") or ("balanced" if "balanced" in known else FULL))
        point = find_point(saved.points, name, saved.network.exit_count)
        if runtime not in self._engines:
            self._engines[runtime] = build(saved.network, runtime, ranges=saved.ranges)
        found = list(Tracker(self._engines[runtime], point.policy()).track(frames, box))
        return {
            "boxes": np.array([box, *(one.box_xywh for one in found)], dtype=np.float64),
            "exits": np.array([0, *(one.exit for one in found)], dtype=np.int64),
            "predicted_ious": np.array([1.0, *(one.predicted_iou for one in found)]),
        }


mlflow.models.set_model(PublishedTracker())

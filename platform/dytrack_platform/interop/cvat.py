"""Our tracker as a function of CVAT's auto-annotation: it follows rectangles that people draw.

Needs the package ``cvat-sdk`` (extra ``interop``). A file ``function.py`` for CVAT's agent is::

    from dytrack_platform.interop.cvat import CvatTracker

    def create(model: str = "reference", point: str = "balanced") -> CvatTracker:
        return CvatTracker(model, point)

Where the target is believed lost there is no shape, so that an annotator sees where to look.
"""

import copy

import cvat_sdk.auto_annotation as cvat
import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from dytrack_model import Tracker
from dytrack_platform import load_tracker

_RECTANGLE = "rectangle"


class CvatTracker:
    """A ``TrackingFunction``: one network, and a state of its own for every shape.

    Args:
        model: What :func:`~dytrack_platform.load_tracker` takes.
        point: Operating point.
        runtime: torch, compile, onnx or openvino.

    Raises:
        ModelLookupError: The name leads to nothing.
        ConfigurationError: There is no such point.
    """

    spec = cvat.TrackingFunctionSpec(supported_shape_types={_RECTANGLE})

    def __init__(
        self, model: str = "reference", point: str = "balanced", runtime: str | None = None
    ) -> None:
        self._first = load_tracker(model, point, runtime)

    def preprocess_image(
        self, context: cvat.TrackingFunctionContext, image: Image
    ) -> NDArray[np.uint8]:
        """Decode once what all shapes of a frame share: (H, W, 3) uint8, red first."""
        return np.asarray(image.convert("RGB"))

    def init_tracking_state(
        self,
        context: cvat.TrackingFunctionShapeContext,
        pp_image: NDArray[np.uint8],
        shape: cvat.TrackableShape,
    ) -> Tracker:
        """Begin with a rectangle's corners in pixels."""
        left, top, right, bottom = shape.points
        tracker = Tracker(self._first.engine, copy.deepcopy(self._first.policy))
        tracker.start(pp_image, (left, top, right - left, bottom - top))
        return tracker

    def track(
        self,
        context: cvat.TrackingFunctionShapeContext,
        pp_image: NDArray[np.uint8],
        state: Tracker,
    ) -> cvat.TrackableShape | None:
        """Find the shape in the next frame; None where it is lost."""
        found = state.step(pp_image)
        if found.lost:
            return None
        x, y, w, h = (float(value) for value in found.box_xywh)
        return cvat.TrackableShape(type=_RECTANGLE, points=[x, y, x + w, y + h])

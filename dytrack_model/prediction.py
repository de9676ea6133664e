"""What a tracker says of one frame."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dytrack_model.errors import RuntimeMissingError
from dytrack_model.target_state import TargetState

if TYPE_CHECKING:
    from supervision import Detections


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prediction:
    """Where the target is in one frame, and how that was found; equal to itself only."""

    box_xywh: NDArray[np.float64]
    """(4,) pixels of the frame."""
    predicted_iou: float
    """The decisioner's estimate of the box's IoU, in [0, 1]: the tracker's confidence."""
    exit: int
    """The exit that gave the box, as the number of blocks that were run."""
    exit_index: int
    """The same exit counted from 0, for code that has one value for each exit."""
    state: TargetState
    """What the tracker believes of its target."""
    network_ms: float
    """Time spent in the network, without crop and mapping."""
    extra_gmacs: float = 0.0
    """What the frame cost beyond its exit's ``exit_gmacs``: heads of shallower exits, which run in
    frames at full depth to learn from them, and all crops but one of a search. Negative in narrow
    frames, by what they save."""
    narrow: bool = False
    """Whether only the narrow search region was looked at; see :mod:`~dytrack_model.narrow`."""

    @property
    def lost(self) -> bool:
        """Whether the tracker believes that it lost the target."""
        return self.state is TargetState.LOST

    def to_supervision(self, tracker_id: int = 1) -> "Detections":
        """Return it for the annotators of the package supervision; empty where it is lost.

        Args:
            tracker_id: Number of the target.

        Returns:
            One detection or none: ``xyxy`` in pixels, ``confidence`` the predicted IoU, and in
            ``data`` the ``exit`` and the ``state``.

        Raises:
            RuntimeMissingError: The package is not installed.
        """
        try:
            from supervision import Detections
        except ImportError as error:
            raise RuntimeMissingError(
                "to_supervision: needs pip install 'dytrack[interop]'"
            ) from error
        if self.lost:
            return Detections.empty()
        x, y, w, h = self.box_xywh
        return Detections(
            xyxy=np.array([[x, y, x + w, y + h]]),
            confidence=np.array([self.predicted_iou]),
            class_id=np.array([0]),
            tracker_id=np.array([tracker_id]),
            data={"exit": np.array([self.exit]), "state": np.array([str(self.state)])},
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What full depth says of a frame that left early."""

    exit_index: int
    """The exit that gave the box, from 0."""
    predicted_iou: float
    """Of that box."""
    predicted_iou_deep: float
    """Of the deepest exit's box."""
    agreement: float
    """IoU of the two boxes, neither corrected nor clipped."""

"""Our tracker as the got10k toolkit wants it (extra ``third-party``: got10k 0.1.3).

::

    from got10k.experiments import ExperimentGOT10k
    experiment = ExperimentGOT10k("GOT-10k", subset="val")
    experiment.run(GOT10kTracker("models:/dytrack@champion", point="balanced"))
"""

from collections.abc import Sequence

import numpy as np
from got10k.trackers import Tracker
from numpy.typing import NDArray
from PIL.Image import Image

from dytrack_platform import load_tracker


class GOT10kTracker(Tracker):  # type: ignore[misc]  # the toolkit has no types
    """A tracker for the toolkit's experiments.

    Args:
        model: A tracker's folder, or models:/NAME@ALIAS.
        point: Operating point.
        device: Where the network runs.

    Raises:
        ModelLookupError: The name leads to nothing.
        ConfigurationError: There is no such point.
    """

    def __init__(self, model: str, point: str = "balanced", device: str = "cpu") -> None:
        super().__init__(name=f"DyTrack-{point}", is_deterministic=True)
        self._tracker = load_tracker(model, point, device=device)

    def init(self, image: Image, box: Sequence[float]) -> None:
        """Take the target from the first frame, an RGB image."""
        self._tracker.start(np.asarray(image), box)

    def update(self, image: Image) -> NDArray[np.float64]:
        """Return the box x, y, w, h in the next frame."""
        return self._tracker.step(np.asarray(image)).box_xywh

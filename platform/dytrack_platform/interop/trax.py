"""Our tracker behind the TraX protocol, for vot-toolkit (extra ``third-party``: vot-trax 4.0.2).

The toolkit starts the command, sends an image's path and a rectangle, and reads rectangles and
confidences back. The protocol may use standard output, so nothing else is ever printed there.
"""

import numpy as np
import trax

from dytrack_model.images import RGB
from dytrack_platform.errors import RuntimeMissingError
from dytrack_platform.evaluation.tracking.protocol import Tracker

__all__ = ["serve"]


def serve(tracker: Tracker, name: str) -> int:
    """Answer one client until it quits.

    Args:
        tracker: What to serve.
        name: Its name in the protocol.

    Returns:
        Frames tracked.

    Raises:
        RuntimeMissingError: The client asks for something TraX knows and this tracker does not.
    """
    frames, first = 0, None
    formats = [trax.Region.RECTANGLE], [trax.Image.PATH]
    with trax.Server(*formats, tracker_name=name, tracker_description="DyTrack") as server:
        while True:
            request = server.wait()
            if request.type not in ("initialize", "frame"):
                return frames
            path = request.image["color"].path()
            first = path if request.type == "initialize" else first
            image = RGB.open(path, first).pixels
            if request.type == "initialize":
                if len(request.objects) != 1:
                    raise RuntimeMissingError(
                        f"TraX: one target at a time, the client sent {len(request.objects)}"
                    )
                box = np.array(request.objects[0][0].bounds(), dtype=np.float64)
                tracker.start(image, box)
                confidence = 1.0
            else:
                step = tracker.step(image)
                box, confidence = step.box_xywh, step.predicted_iou
            frames += 1
            said = {} if np.isnan(confidence) else {"confidence": float(confidence)}
            server.status([(trax.Rectangle.create(*map(float, box)), said)])

"""One target of a stream: its tracker on the model of the moment, and how to start it again."""

from dataclasses import dataclass, field

from dytrack_model.errors import ConfigurationError
from dytrack_model.images import RGB
from dytrack_model.narrow import Pace
from dytrack_model.online import Tracker
from dytrack_model.policy import FULL, OperatingPoint, Policy, find_point
from dytrack_model.prediction import Prediction
from dytrack_model.runtime.engine import Work
from dytrack_platform.serving.messages import Refused
from dytrack_platform.serving.models import Model
from dytrack_platform.serving.pacing import Audits, Paced
from dytrack_platform.serving.pictures import Origin
from dytrack_platform.serving.tokens import SavedTarget

DEFAULT_POINT = "balanced"


@dataclass
class Target:
    """A target that is followed."""

    id: str
    origin: Origin
    box_xywh: tuple[float, ...]
    """(4,) where it was last."""
    point: str
    """Name of its operating point."""
    budget_ms: float | None = None
    wide_frames: int = 0
    """For how many frames the whole search region is looked at; see
    :class:`~dytrack_model.narrow.Pace`."""
    tracker: Tracker = field(init=False)
    paced: Paced | None = None
    _raised: float = 0.0

    @classmethod
    def restored(cls, saved: SavedTarget, point: str) -> "Target":
        """Return what :meth:`saved` kept, at an operating point of the model that it goes on on."""
        return cls(saved.id, saved.origin, saved.box_xywh, point, wide_frames=saved.wide_frames)

    def saved(self) -> SavedTarget:
        """Return what is kept for another server."""
        return SavedTarget(
            id=self.id,
            origin=self.origin,
            box_xywh=self.box_xywh,
            point=self.point,
            wide_frames=self.wide_frames,
        )

    def beginning(self, model: Model, image: RGB, audits: Audits) -> Work[None]:
        """Start it on a model, call by call, with the frame that it is first seen in.

        Args:
            model: The model.
            image: The frame.
            audits: The stream's, which correct thresholds.
        """
        self.tracker = Tracker(model.engine, self._policy(model, audits))
        yield from self.tracker.starting(image, self.box_xywh)

    def resuming(self, model: Model, size: tuple[int, int], audits: Audits) -> Work[None]:
        """Start it on a model from its origin, call by call, where it was last.

        Args:
            model: The model.
            size: Width and height of the stream's frames.
            audits: The stream's, which correct thresholds.
        """
        self.tracker = Tracker(model.engine, self._policy(model, audits))
        yield from self.tracker.starting(self.origin.image(), self.origin.box_xywh)
        self.tracker.move_to(self.box_xywh, size)
        self.tracker.pace = Pace(self.wide_frames)

    def stepping(self, image: RGB) -> Work[Prediction]:
        """Find it in the next frame, call by call."""
        found = yield from self.tracker.stepping(image)
        self.box_xywh = tuple(float(value) for value in found.box_xywh)
        self.wide_frames = self.tracker.pace.wide_frames
        return found

    def choose(
        self, model: Model, audits: Audits, point: str | None, budget_ms: float | None
    ) -> None:
        """Change the operating point, or the budget that chooses it.

        Raises:
            Refused: The model has no such point.
        """
        before = (self.point, self.budget_ms)
        self.point, self.budget_ms = point or self.point, budget_ms
        try:
            self.tracker.policy = self._policy(model, audits)
        except Refused:
            self.point, self.budget_ms = before
            raise
        self.tracker.policy.begin_target()

    def follow(self, model: Model, audits: Audits) -> None:
        """Take over how much the stream's audits raise thresholds by now."""
        if audits.raised != self._raised and self.paced is None:
            self.tracker.policy = self._policy(model, audits)
            self.tracker.policy.begin_target()

    def _policy(self, model: Model, audits: Audits) -> Policy:
        exits = model.engine.exit_count
        self._raised = audits.raised
        if self.budget_ms is not None:
            self.paced = Paced(model.points, exits, self.budget_ms)
            return self.paced
        self.paced = None
        return audits.corrected(find(model, self.point)).policy()


def find(model: Model, name: str) -> OperatingPoint:
    """Return a model's operating point.

    Raises:
        Refused: It has none of that name.
    """
    try:
        return find_point(model.points, name, model.engine.exit_count)
    except ConfigurationError as error:
        raise Refused("point", str(error)) from None


def nearest_point(model: Model, name: str) -> str:
    """Return the name of a point where the model has that, else of the default, else full depth."""
    for wanted in (name, DEFAULT_POINT):
        try:
            find(model, wanted)
        except Refused:
            continue
        return wanted
    return FULL

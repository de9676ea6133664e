"""Decide by value: go deeper where that is worth its price.

What depth gains can hardly be told from how sure an exit is: shallow and deep exits are sure and
unsure of the same frames. It can be told from how ambiguous the exit's answer is
(:mod:`~dytrack_model.ambiguity`), for most of what depth gains over a video is that the target is
not lost. And from the target's past: where the deepest exit found another box than the shallow
ones in the last frame that it saw, and was surer of it, it will again. The value of going on from
an exit is linear in numbers of both kinds (:meth:`Memory.features`), with weights of ours (the
ambiguity) or fitted to what depth gained on held-out videos. The policy leaves where the value is
below ``price`` times what depth costs more, and looks again at full depth after ``audit_every``
frames at the latest, for a memory ages. Our choice.

Dimensions: E exits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dytrack_model.ambiguity import CLEAR, Ambiguity
from dytrack_model.config import require

FEATURES = 11
_OF_HEAD = len(CLEAR)  # the last ones of Memory.features
_OLD = 30
_DROP = 6  # its place among Memory.features

AMBIGUITY = (1.0, 0.5, 0.5)
"""What distractor, displacement and change of size count in an answer's ambiguity, at most 2."""

AUDIT_EVERY = 15
"""Frames after which a point that leaves by ambiguity runs to full depth anyhow."""


def drop_weights(exits: int) -> tuple[tuple[float, ...], ...]:
    """Return (E - 1, FEATURES) weights of a value that nobody has to fit.

    An exit's value of going on is what its predicted IoU has fallen since the last frame at full
    depth: not how sure it is, for that differs from target to target, but that something happened.
    """
    fallen = tuple(float(place == _DROP) for place in range(FEATURES))
    return (fallen,) * (exits - 1)


def ambiguity_weights(exits: int) -> tuple[tuple[float, ...], ...]:
    """Return (E - 1, FEATURES) weights of another such value: how ambiguous the answer is.

    What else looks like the target counts twice as much as how far the box moved and how its size
    changed: about what a fit to lost targets gave.
    """
    return ((0.0,) * (FEATURES - _OF_HEAD) + AMBIGUITY,) * (exits - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueRule:
    """A price and what it is compared with."""

    weights: tuple[tuple[float, ...], ...]
    """(E - 1, FEATURES): value of going on from each exit but the last."""
    costs: tuple[float, ...]
    """(E,) cost of a stop at each exit, over that of full depth."""
    price: float
    """Value that the cost of one frame at full depth is worth; 0 always goes to full depth."""
    audit_every: int = AUDIT_EVERY
    """Frames after which full depth is run whatever the value."""

    def __post_init__(self) -> None:
        exits = len(self.costs)
        shape = {len(row) for row in self.weights}
        require(
            len(self.weights) == exits - 1 and shape <= {FEATURES},
            f"weights: must be {FEATURES} numbers for each of {exits - 1} exits",
        )
        require(self.audit_every >= 1, f"audit_every: must be at least 1, got {self.audit_every}")
        require(self.price == self.price, "price: must be a number, got NaN")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "weights": [list(row) for row in self.weights],
            "costs": list(self.costs),
            "price": self.price if self.price < float("inf") else "inf",  # JSON has no infinity
            "audit_every": self.audit_every,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ValueRule":
        """Build from what :meth:`to_dict` returned, also before heads were looked at."""
        weights = [tuple(float(v) for v in row) for row in values["weights"]]
        none = (0.0,) * _OF_HEAD
        before = all(len(row) == FEATURES - _OF_HEAD for row in weights)
        return cls(
            weights=tuple(row + none for row in weights) if before else tuple(weights),
            costs=tuple(float(v) for v in values["costs"]),
            price=float(values["price"]),
            audit_every=int(values["audit_every"]),
        )


class Memory:
    """What the last frame at full depth said of every exit."""

    def __init__(self) -> None:
        self.age: int | None = None
        """Frames since then; None where there was none."""
        self._predicted: tuple[float, ...] = ()
        self._agreement: tuple[float, ...] = ()

    def pass_frame(self) -> None:
        """A frame has begun."""
        if self.age is not None:
            self.age += 1

    def take(self, predicted_iou: Sequence[float], agreement: Sequence[float]) -> None:
        """Keep a frame at full depth: (E,) predicted IoUs, (E - 1,) IoUs with the deepest box."""
        self.age = 0
        self._predicted, self._agreement = tuple(predicted_iou), tuple(agreement)

    def features(
        self, exit_index: int, predicted_iou: float, ambiguity: Ambiguity = CLEAR
    ) -> tuple[float, ...]:
        """Describe an exit of the running frame by FEATURES numbers; there must be a memory."""
        assert self.age is not None  # a target's first frame goes to full depth
        apart = 1.0 - self._agreement[exit_index]
        before = self._predicted[exit_index]
        surer = self._predicted[-1] - before
        age = min(self.age, _OLD) / _OLD
        return (
            1.0,
            predicted_iou,
            apart,
            surer,
            apart * min(max(surer + 0.1, 0.0), 1.0),
            apart * (1.0 - age),
            before - predicted_iou,
            self._predicted[-1],
            *ambiguity,
        )


class ValueOfDepth:
    """The policy of one :class:`ValueRule`."""

    reads_score = True

    def __init__(self, rule: ValueRule, *, narrow: bool = False) -> None:
        self._rule, self.narrow = rule, narrow
        self._memory = Memory()

    @property
    def varies(self) -> bool:
        """Unless depth costs nothing, or is looked at in every frame."""
        return self._rule.price > 0 and self._rule.audit_every > 1

    @property
    def reads_head(self) -> bool:
        """Where some weight is on it."""
        return self.varies and any(any(row[-_OF_HEAD:]) for row in self._rule.weights)

    @property
    def learns_from_depth(self) -> bool:
        """Where it may leave."""
        return self.varies

    def begin_target(self) -> None:
        """A new target has no past."""
        self._memory = Memory()

    def begin_frame(self) -> None:
        """The memory of the last frame at full depth grows older."""
        self._memory.pass_frame()

    def leave(self, exit_index: int, predicted_iou: float, ambiguity: Ambiguity = CLEAR) -> bool:
        """Leave where going on is not worth its price."""
        rule, memory = self._rule, self._memory
        if rule.price <= 0 or memory.age is None or memory.age >= rule.audit_every:
            return False
        features = memory.features(exit_index, predicted_iou, ambiguity)
        value = float(np.dot(rule.weights[exit_index], features))
        return value < rule.price * (rule.costs[-1] - rule.costs[exit_index])

    def full_depth(self, predicted_iou: Sequence[float], agreement: Sequence[float]) -> None:
        """Learn from a frame that ran to full depth: (E,) and (E - 1,)."""
        self._memory.take(predicted_iou, agreement)

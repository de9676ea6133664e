"""Whether a tracker knows that its target is gone: states against the annotation's flags."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.evaluation.scoring.dataset_scores import plain_number
from dytrack_platform.evaluation.tracking.protocol import SequenceResult

_GONE = ("lost",)
NOT_SURE = ("lost", "doubtful")


@dataclass(frozen=True, kw_only=True, slots=True)
class StateScore:
    """Frames by truth and state."""

    present: Mapping[str, int]
    """Frames that show the target, by state."""
    absent: Mapping[str, int]
    """Frames that do not, by state."""

    @property
    def names(self) -> tuple[str, ...]:
        """All states that occurred."""
        return tuple(sorted({*self.present, *self.absent}))

    def balanced_accuracy(self, gone: Sequence[str] = _GONE) -> float:
        """Mean of two shares: absent frames in one of these states, other frames in none of them.

        NaN where no frame is absent, or none is not.
        """
        shares = [
            sum(counts.get(state, 0) for state in gone) / sum(counts.values())
            if sum(counts.values())
            else float("nan")
            for counts in (self.absent, self.present)
        ]
        return (shares[0] + 1 - shares[1]) / 2

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "present": dict(self.present),
            "absent": dict(self.absent),
            "balanced_accuracy": plain_number(self.balanced_accuracy()),
            "balanced_accuracy_doubtful": plain_number(self.balanced_accuracy(NOT_SURE)),
        }


def score_states(
    results: Sequence[SequenceResult], absent: Mapping[str, NDArray[np.bool_] | None]
) -> StateScore | None:
    """Count frames by truth and state.

    Args:
        results: Those without states do not count.
        absent: (N,) by sequence; None where the dataset has no flags. Such sequences do not count.

    Returns:
        None where nothing counts.
    """
    present, missing = Counter[str](), Counter[str]()
    for result in results:
        flags = absent[result.name]
        if flags is None:
            continue
        for state, gone in zip(result.states, flags.tolist(), strict=False):
            if state:
                (missing if gone else present)[state] += 1
    if not present and not missing:
        return None
    return StateScore(present=dict(present), absent=dict(missing))

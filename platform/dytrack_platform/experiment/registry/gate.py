"""The gate before an alias moves: is this version as good as the one that is there, and as cheap?

Two versions are compared at one operating point, sequence by sequence, on the same data and by the
same rules; what a frame costs is measured for both on this machine, taking turns. The interval of
the difference is a paired bootstrap over sequences. Our choice.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dytrack_model.config import require
from dytrack_platform.evaluation.report.comparison import interval
from dytrack_platform.experiment.registry.card import Card, expected_ms


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """What a version has to show."""

    point: str = "balanced"
    """Operating point that is compared."""
    margin: float = 0.01
    """Success AUC that the low end of the interval may lie under the other version's."""
    better: bool = False
    """Ask for an interval above zero, in place of one above minus the margin."""
    confidence: float = 0.95
    """Of the interval."""
    slower: float | None = 0.25
    """Share by which a frame may take longer than the other version's; None does not ask."""
    max_ms: float | None = None
    """Largest mean milliseconds of a frame at the point, on this machine."""
    max_gmacs: float | None = None
    """Largest mean GMACs of a frame at the point."""

    def __post_init__(self) -> None:
        require(0 <= self.margin < 1, f"margin: must lie in [0, 1), got {self.margin}")
        require(
            0.5 <= self.confidence < 1, f"confidence: must lie in [0.5, 1), got {self.confidence}"
        )
        for name in ("slower", "max_ms", "max_gmacs"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"{name}: must not be negative, got {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the gate says."""

    refusals: tuple[str, ...]
    """Why not, one sentence each; empty where it holds."""
    report: dict[str, Any]
    """What was compared, plain JSON."""

    @property
    def holds(self) -> bool:
        """Whether the alias may move."""
        return not self.refusals


def judge(
    gate: Gate,
    candidate: Card,
    other: Card | None,
    milliseconds: tuple[list[float], list[float]],
) -> Verdict:
    """Compare a version with the one that has the alias.

    Args:
        gate: What is asked.
        candidate: The card of the version that wants the alias.
        other: The card of the one that has it; None where nobody has.
        milliseconds: Of every exit of both, measured here; the second is not read without another.
    """
    refusals: list[str] = []
    report: dict[str, Any] = {"point": gate.point, "dataset": candidate.dataset}
    ours = candidate.point(gate.point)
    if ours is None or not ours.sequences:
        return Verdict(
            refusals=(
                f"there is no evaluation of point {gate.point}: run dytrack evaluate at it, and "
                "publish with --evaluation",
            ),
            report=report,
        )
    ms = expected_ms(ours.exit_share, milliseconds[0], candidate.exits, ours.gmacs)
    report |= {"success_auc": ours.success_auc, "ms": ms, "gmacs": ours.gmacs}
    if gate.max_ms is not None and ms > gate.max_ms:
        refusals.append(f"a frame takes {ms:.2f} ms, {gate.max_ms:g} are allowed")
    if gate.max_gmacs is not None and (ours.gmacs is None or ours.gmacs > gate.max_gmacs):
        refusals.append(f"a frame takes {ours.gmacs} GMACs, {gate.max_gmacs:g} are allowed")
    if other is not None:
        refusals += _against(gate, candidate, other, (ms, milliseconds[1]), report)
    return Verdict(refusals=tuple(refusals), report=report)


def _against(
    gate: Gate,
    candidate: Card,
    other: Card,
    cost: tuple[float, list[float]],
    report: dict[str, Any],
) -> list[str]:
    """Compare with the version that has the alias; adds to the report and returns refusals."""
    ours, theirs = candidate.point(gate.point), other.point(gate.point)
    assert ours is not None  # the caller looked
    if theirs is None or not theirs.sequences:
        return [
            f"the version that has the alias was not evaluated at point {gate.point}: evaluate it, "
            "publish it again with --evaluation, or move the alias by --force"
        ]
    for what, mine, its in (
        ("dataset", candidate.dataset, other.dataset),
        ("protocol", candidate.protocol, other.protocol),
        ("data", candidate.data, other.data),
    ):
        if mine != its or not mine:
            return [
                f"the evaluations differ in {what} ({mine or 'unknown'} and {its or 'unknown'}): "
                "evaluate both on the same sequences"
            ]
    if set(ours.sequences) != set(theirs.sequences) or len(ours.sequences) < 2:
        return [
            f"the evaluations have {len(ours.sequences)} and {len(theirs.sequences)} sequences: "
            "a comparison needs the same ones, two or more"
        ]
    refusals = []
    names = sorted(ours.sequences)
    rows = np.array([ours.sequences[name] - theirs.sequences[name] for name in names])
    found = interval(rows, confidence=gate.confidence)
    report["difference"] = {"value": found.value, "low": found.low, "high": found.high}
    report["sequences"] = len(names)
    least = 0.0 if gate.better else -gate.margin
    if not (found.low > least if gate.better else found.low >= least):
        goal = "above 0" if gate.better else f"at least {least:g}"
        refusals.append(
            f"success AUC differs by {found.value:+.4f} (interval {found.low:+.4f} to "
            f"{found.high:+.4f} over {len(names)} sequences); its low end must be {goal}"
        )
    its_ms = expected_ms(theirs.exit_share, cost[1], other.exits, theirs.gmacs)
    report["other_ms"] = its_ms
    if gate.slower is not None and cost[0] > its_ms * (1 + gate.slower):
        refusals.append(
            f"a frame takes {cost[0]:.2f} ms here, the version that has the alias {its_ms:.2f}; "
            f"{gate.slower:.0%} more are allowed"
        )
    return refusals

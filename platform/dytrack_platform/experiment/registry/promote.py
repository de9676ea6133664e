"""Promote a version: compare it with the one that has the alias, then move it or say why not."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from dytrack_model import checkpoint
from dytrack_model.checkpoint import SavedTracker
from dytrack_platform.experiment.registry import card as cards
from dytrack_platform.experiment.registry import promotion, registry
from dytrack_platform.experiment.registry.gate import Gate, Verdict, judge
from dytrack_platform.experiment.registry.publishing import CANDIDATE, CHAMPION, is_alias


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a promotion."""

    verdict: Verdict
    moved: tuple[str, ...]
    """Aliases that moved."""
    before: int | None
    """The version that had ``champion``."""


def promote(name: str, version: int, gate: Gate, *, force: str = "") -> Outcome:
    """Move ``champion``, and the aliases of operating points, to a version that passes the gate.

    ``champion`` needs the gate's point; the alias of another point moves where the gate holds at
    that point too. A refusal is written on the version.

    Args:
        name: Name of the registered model.
        version: The version to promote.
        gate: What it has to show.
        force: Why ``champion`` moves although the gate refuses; empty: it does not.

    Raises:
        ModelLookupError: There is no such version, or it has no card.
        StorageError: Somebody else moved the alias meanwhile, or the store does not answer.
    """
    before = promotion.holder(name, CHAMPION)
    ours, card = _open(name, version)
    theirs, other = _open(name, before) if before not in (None, version) else (None, None)
    times: tuple[list[float], list[float]] = (
        cards.measure_beside(ours, theirs)
        if theirs is not None
        else (cards.measure_beside(ours, ours)[0], [])
    )
    verdict = judge(gate, card, other, times)
    report = json.dumps(verdict.report)
    why = "; ".join(verdict.refusals) or _words(verdict)
    if not verdict.holds and not force:
        promotion.note(name, promotion.entry("refused", CHAMPION, before, version, why, report))
        return Outcome(verdict=verdict, moved=(), before=before)
    kind: promotion.Kind = "promoted" if verdict.holds else "forced"
    reason = why if verdict.holds else f"{force} (the gate refused: {why})"
    moved = []
    if before != version:
        promotion.move(name, promotion.entry(kind, CHAMPION, before, version, reason, report))
        moved.append(CHAMPION)
    moved += _points(name, version, gate, (card, other), times, kind if force else "promoted")
    return Outcome(verdict=verdict, moved=tuple(moved), before=before)


def _points(
    name: str,
    version: int,
    gate: Gate,
    known: tuple[cards.Card, cards.Card | None],
    times: tuple[list[float], list[float]],
    kind: promotion.Kind,
) -> list[str]:
    """Move the aliases of operating points at which the gate holds."""
    moved = []
    for row in known[0].points:
        if not is_alias(row.name):
            continue  # such as "my point": it is chosen by name, not by an alias
        verdict = judge(replace(gate, point=row.name), *known, times)
        now = promotion.holder(name, row.name) if row.name not in (CANDIDATE, CHAMPION) else version
        wanted = row.name == gate.point or verdict.holds or (now is None and bool(row.sequences))
        if not wanted or now == version:
            continue
        entry = promotion.entry(
            kind, row.name, now, version, _words(verdict), json.dumps(verdict.report)
        )
        promotion.move(name, entry)
        moved.append(row.name)
    return moved


def _open(name: str, version: int | None) -> tuple[SavedTracker, cards.Card]:
    with TemporaryDirectory(prefix="dytrack-") as folder:
        found = registry.find(f"models:/{name}/{version}", Path(folder))
        return checkpoint.load(found), cards.Card.read(found.parent / cards.FILE)


def _words(verdict: Verdict) -> str:
    difference = verdict.report.get("difference")
    if difference is None:
        return f"the first version at point {verdict.report['point']}"
    return (
        f"success AUC {difference['value']:+.4f} ({difference['low']:+.4f} to "
        f"{difference['high']:+.4f}) at point {verdict.report['point']}"
    )

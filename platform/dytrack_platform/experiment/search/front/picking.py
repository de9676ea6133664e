"""Pick one member of a front: ``ms<=8, max auc``, or the knee point."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dytrack_platform.config.search import Constraint
from dytrack_platform.errors import ConfigurationError, ModelLookupError
from dytrack_platform.experiment.search.front.members import Member, knee

_NAMES = ("auc", "iou", "gmacs", "ms")
_BOUND = re.compile(r"([a-z]+)\s*(<=|>=)\s*([0-9.eE+-]+)")
_AIM = re.compile(r"(max|min)\s+([a-z]+)")


@dataclass(frozen=True, slots=True)
class Pick:
    """What is wanted of a member."""

    bounds: tuple[Constraint, ...]
    aim: str
    """auc, iou, gmacs or ms."""
    most: bool
    """Whether more of it is better."""


def parse(text: str) -> Pick:
    """Read ``ms<=8, max auc``: bounds, and one aim (``max auc`` where none is given).

    Raises:
        ConfigurationError: It cannot be read; the message says which part.
    """
    bounds, aims = [], []
    for part in (piece.strip() for piece in text.split(",")):
        bound, aim = _BOUND.fullmatch(part), _AIM.fullmatch(part)
        name = bound[1] if bound else aim[2] if aim else None
        if name not in _NAMES:
            raise ConfigurationError(
                f"--pick {text!r}: cannot read {part!r}; expected bounds and one aim on "
                f"{', '.join(_NAMES)}, as in 'ms<=8, max auc'"
            )
        if bound:
            try:
                bounds.append(Constraint(bound[1], bound[2] == "<=", float(bound[3])))
            except ValueError:
                raise ConfigurationError(f"--pick {text!r}: {bound[3]!r} is no number") from None
        elif aim:
            aims.append((aim[2], aim[1] == "max"))
    if len(aims) > 1:
        raise ConfigurationError(f"--pick {text!r}: has {len(aims)} aims; give one")
    aim_name, most = aims[0] if aims else ("auc", True)
    return Pick(tuple(bounds), aim_name, most)


def choose(members: Sequence[Member], objectives: Sequence[str], pick: Pick | None) -> Member:
    """Return the member that is wanted, or the knee point; only those on the front are asked.

    Raises:
        ModelLookupError: None keeps the bounds, or nothing is known of what was asked for.
    """
    on_front = [member for member in members if member.on_front]
    if pick is None:
        return knee(members, objectives)
    kept = [
        member
        for member in on_front
        if all(bound.kept(_value(member, bound.name)) for bound in pick.bounds)
    ]
    known = [member for member in kept if _value(member, pick.aim) == _value(member, pick.aim)]
    if not known:
        raise ModelLookupError(
            f"--pick: none of the {len(on_front)} members of the front keeps what is asked for; "
            "front.json lists their values"
        )
    sign = 1.0 if pick.most else -1.0
    return max(known, key=lambda member: sign * _value(member, pick.aim))


def _value(member: Member, name: str) -> float:
    """Return a value, measured where it was; ``auc`` is the IoU where no loop was closed."""
    values = member.costs()
    if name == "auc":
        return values.get("success_auc", values["iou"])
    return values.get(name, float("nan"))

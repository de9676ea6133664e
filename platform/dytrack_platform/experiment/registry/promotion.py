"""Move an alias through a gate, write down every move, and undo one.

A registry's alias has no history and the last writer wins. So every move is an entry of a journal,
kept as tags of the version that it is about, and an alias is read before and after it is written:
of two who promote at once, one is told that he lost.
"""

import getpass
import json
import re
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from dytrack_platform.experiment.runs import tracking  # sets MLflow's environment first

import mlflow  # isort: skip
from mlflow.exceptions import MlflowException

from dytrack_platform.errors import DyTrackError, ModelLookupError, StorageError

Kind = Literal["promoted", "refused", "forced", "rolled back", "lost"]
_TAG = "journal."
_SETTLE_S = 0.2
"""Time in which another's write, begun before ours, has arrived."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One move of an alias, or one that was refused."""

    at: str
    """UTC, ISO 8601."""
    by: str
    """The user's name on the machine that moved it."""
    kind: Kind
    alias: str
    before: int | None
    """The version that had the alias; None: nobody."""
    after: int | None
    """The version that it was moved to, or should have been."""
    why: str
    report: str = ""
    """What the gate compared, as JSON."""

    @property
    def moved(self) -> bool:
        """Whether the alias moved."""
        return self.kind in ("promoted", "forced", "rolled back")


def holder(name: str, alias: str) -> int | None:
    """Return the version that has an alias; None where nobody has it.

    Raises:
        AccessError: The store does not answer, or refuses who asks.
        StorageError: It fails.
    """
    tracking.look()
    try:
        return int(mlflow.MlflowClient().get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        # The stores call an alias that is not there an invalid value; servers, not found.
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise _failed(name, error) from error


def note(name: str, entry: Entry) -> None:
    """Write an entry to the version that it is about.

    Raises:
        AccessError: The store does not answer, or refuses who asks.
        StorageError: It fails.
    """
    about = entry.after if entry.after is not None else entry.before
    client = mlflow.MlflowClient()
    # The stamp sorts; the tail keeps two entries of one moment apart.
    key = f"{_TAG}{re.sub('[^0-9]', '', entry.at.partition('+')[0])}-{uuid.uuid4().hex[:6]}"
    latest = {
        "promoted_at": entry.at,
        "promoted_by": entry.by,
        "promoted_from": str(entry.before or ""),
        "promoted_why": entry.why,
        "promoted_report": entry.report,
    }
    if entry.kind == "refused":
        latest = {"refused_at": entry.at, "refused_why": entry.why}
    try:
        client.set_model_version_tag(name, str(about), key, json.dumps(asdict(entry)))
        for tag, value in latest.items() if entry.kind != "lost" else ():
            client.set_model_version_tag(name, str(about), tag, value)
    except MlflowException as error:
        raise _failed(name, error) from error


def entry(
    kind: Kind, alias: str, before: int | None, after: int | None, why: str, report: str = ""
) -> Entry:
    """Make an entry of this moment and this user."""
    try:
        who = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        who = "unknown"
    at = datetime.now(UTC).isoformat(timespec="microseconds")
    return Entry(
        at=at, by=who, kind=kind, alias=alias, before=before, after=after, why=why, report=report
    )


def move(name: str, move_to: Entry) -> None:
    """Move an alias if it still is where the entry says, and write the entry down.

    Raises:
        StorageError: Somebody else moved it meanwhile, or the store does not answer.
    """
    client, alias = mlflow.MlflowClient(), move_to.alias
    if (now := holder(name, alias)) != move_to.before:
        raise StorageError(
            f"{alias} of {name} moved from version {move_to.before} to {now} while this was "
            "decided; look at dytrack models and try again"
        )
    try:
        client.set_registered_model_alias(name, alias, str(move_to.after))
    except MlflowException as error:
        raise _failed(name, error) from error
    time.sleep(_SETTLE_S)
    if (now := holder(name, alias)) != move_to.after:
        lost = entry("lost", alias, move_to.before, move_to.after, f"version {now} came later")
        note(name, lost)
        raise StorageError(
            f"{alias} of {name} was moved to version {now} by somebody else at the same time; "
            "look at dytrack models and try again"
        )
    note(name, move_to)


def history(name: str) -> list[Entry]:
    """Return every entry of a model, oldest first.

    Raises:
        ModelLookupError: There is no such model.
        AccessError: The store does not answer, or refuses who asks.
        StorageError: It fails.
    """
    found = []
    for version in versions(name):
        for key, value in version.tags.items():
            if key.startswith(_TAG):
                try:
                    found.append(Entry(**json.loads(value)))
                except (ValueError, TypeError):
                    continue  # somebody else's tag
    return sorted(found, key=lambda one: one.at)


def versions(name: str) -> "list[mlflow.entities.model_registry.ModelVersion]":
    """Return all versions of a model, newest first.

    Raises:
        ModelLookupError: There is no such model.
        AccessError: The store does not answer, or refuses who asks.
        StorageError: It fails.
    """
    tracking.look()
    client = mlflow.MlflowClient()
    try:
        found = []
        page = client.search_model_versions(f"name='{name}'", max_results=1000)
        found += list(page)
        while page.token:
            page = client.search_model_versions(
                f"name='{name}'", max_results=1000, page_token=page.token
            )
            found += list(page)
    except MlflowException as error:
        raise _failed(name, error) from error
    if not found:
        raise ModelLookupError(
            f"{name}: no such model in {tracking.shown()}; dytrack publish makes one"
        )
    return sorted(found, key=lambda one: -int(one.version))


def aliases(name: str) -> dict[int, tuple[str, ...]]:
    """Return the aliases of each version that has some.

    Raises:
        ModelLookupError: There is no such model.
        AccessError: The store does not answer, or refuses who asks.
        StorageError: It fails.
    """
    versions(name)
    try:
        known = mlflow.MlflowClient().get_registered_model(name).aliases
    except MlflowException as error:
        raise _failed(name, error) from error
    found: dict[int, tuple[str, ...]] = {}
    for alias, version in sorted(known.items()):
        found[int(version)] = (*found.get(int(version), ()), alias)
    return found


def previous(entries: list[Entry], alias: str) -> int | None:
    """Return the version that a rollback leads to; None where there is none.

    Args:
        entries: The journal, oldest first.
        alias: Which alias.
    """
    stack: list[int] = []
    for one in entries:
        if one.alias != alias or not one.moved:
            continue
        if one.kind == "rolled back":
            stack = stack[:-1]
        else:
            if not stack and one.before is not None:
                stack.append(one.before)
            if one.after is not None:
                stack.append(one.after)
    return stack[-2] if len(stack) > 1 else None


def rollback(name: str, alias: str, why: str) -> Entry:
    """Move an alias back to the version that had it before.

    Raises:
        ModelLookupError: There is no such model, or nothing to go back to.
        StorageError: Somebody else moved it meanwhile, or the store does not answer.
    """
    now, before = holder(name, alias), previous(history(name), alias)
    if before is None:
        raise ModelLookupError(
            f"{alias} of {name}: the journal knows no earlier version to go back to"
        )
    back = entry("rolled back", alias, now, before, why)
    move(name, back)
    return back


def _failed(name: str, error: Exception) -> DyTrackError:
    return tracking.failure(error, f"the registry of {name} at {tracking.shown()} fails")

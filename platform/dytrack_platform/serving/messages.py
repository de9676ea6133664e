"""The protocol of one stream: what clients send, checked, and what they are answered.

docs/serving.md says what it means, docs/asyncapi.yaml says it to machines.
"""

import json
import math
import struct
import time
from dataclasses import dataclass, field
from typing import Any, Literal

HEADER = struct.Struct("<Qd")
"""Before a frame's bytes: its number, and its time in seconds."""
StreamMode = Literal["realtime", "every"]
_KINDS = ("start", "add", "move", "remove", "point", "model", "token", "stop")


class Refused(Exception):
    """A message or a frame that cannot be used; the stream goes on unless it had not started."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetBox:
    """A target, and where it is in the next frame."""

    id: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """One message of a client."""

    kind: str
    """start, add, move, remove, point, model, token or stop."""
    targets: tuple[TargetBox, ...] = ()
    """Of start, add and move."""
    ids: tuple[str, ...] = ()
    """Of remove and point; no id means every target."""
    point: str | None = None
    budget_ms: float | None = None
    mode: StreamMode = "every"
    model: str | None = None
    resume: str | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before a frame's bytes."""

    frame: int
    seconds: float


@dataclass(eq=False)
class Arrived:
    """A frame that waits."""

    header: Header
    data: bytes
    commands: list[Command]
    """What was said before it and takes effect with it."""
    at: float = field(default_factory=time.perf_counter)

    @property
    def needed(self) -> bool:
        """Whether boxes are about this very frame, which is then never dropped."""
        return any(command.kind in ("start", "add", "move") for command in self.commands)


def read_frame(message: bytes) -> tuple[Header, bytes]:
    """Cut a binary message into its header and the picture.

    Raises:
        Refused: It is too short, or its time is no number.
    """
    if len(message) <= HEADER.size:
        raise Refused("frame", "a frame is 16 bytes (number, seconds) and a JPEG or PNG")
    number, seconds = HEADER.unpack_from(message)
    if not math.isfinite(seconds):
        raise Refused("frame", f"frame {number}: its time is not a number")
    return Header(number, seconds), message[HEADER.size :]


def read_command(text: str) -> Command:
    """Read a text message.

    Raises:
        Refused: It is not JSON, or says something that there is not.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused("message", "a text message is one JSON object") from None
    if not isinstance(values, dict) or values.get("type") not in _KINDS:
        raise Refused("message", f"type: must be one of {', '.join(_KINDS)}")
    kind = values["type"]
    known = {
        "start": {"targets", "point", "mode", "budget_ms", "model", "resume"},
        "add": {"targets", "id", "box", "point", "budget_ms"},
        "move": {"targets", "id", "box"},
        "remove": {"id", "ids"},
        "point": {"id", "ids", "point", "budget_ms"},
        "model": {"model"},
    }.get(kind, set())
    unknown = sorted(set(values) - known - {"type"})
    if unknown:
        raise Refused("message", f"{kind}: there is no {unknown[0][:40]!r} in it")
    command = Command(
        kind=kind,
        targets=_targets(values) if kind in ("start", "add", "move") else (),
        ids=_ids(values) if kind in ("remove", "point") else (),
        point=_text(values, "point"),
        budget_ms=_budget(values),
        mode=_mode(values),
        model=_text(values, "model"),
        resume=_text(values, "resume", 2**24),
    )
    _require_whole(command)
    return command


def _require_whole(command: Command) -> None:
    kind = command.kind
    if kind in ("add", "move") and not command.targets:
        raise Refused("message", f"{kind}: needs targets, each with id and box")
    if kind == "start" and not (command.targets or command.resume):
        raise Refused("message", "start: needs targets, each with id and box, or resume")
    if kind == "remove" and not command.ids:
        raise Refused("message", "remove: needs the id of a target")
    if kind == "point" and command.point is None and command.budget_ms is None:
        raise Refused("message", "point: needs point, budget_ms, or both")
    if kind == "model" and command.model is None:
        raise Refused("message", "model: needs the name of a model")
    names = [target.id for target in command.targets]
    if len(set(names)) != len(names):
        raise Refused("message", f"{kind}: two targets have one id")


def _targets(values: dict[str, Any]) -> tuple[TargetBox, ...]:
    rows = values.get("targets", [])
    if "id" in values or "box" in values:
        rows = [{"id": values.get("id"), "box": values.get("box")}]
    if not isinstance(rows, list) or len(rows) > 1000:
        raise Refused("message", "targets: must be a list of targets, each with id and box")
    return tuple(_target(row) for row in rows)


def _target(row: Any) -> TargetBox:  # noqa: ANN401  (whatever a client sent)
    if not isinstance(row, dict):
        raise Refused("message", "targets: each has id and box")
    name, box = _require_id(row.get("id")), row.get("box")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(v) for v in box):
        raise Refused("box", f"target {name}: box must be four numbers x, y, w, h in pixels")
    x, y, w, h = (float(value) for value in box)
    return TargetBox(id=name, box=(x, y, w, h))


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e6  # not so for what is not a number


def _ids(values: dict[str, Any]) -> tuple[str, ...]:
    rows = values.get("ids", [values["id"]] if "id" in values else [])
    if not isinstance(rows, list) or len(rows) > 1000:
        raise Refused("message", "ids: must be a list of targets' ids")
    for row in rows:
        _require_id(row)
    return tuple(rows)


def _require_id(name: object) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= 64 or not name.isprintable():
        raise Refused("message", "id: must be a text of 1 to 64 characters")
    return name


def _text(values: dict[str, Any], key: str, most: int = 200) -> str | None:
    value = values.get(key)
    if value is not None and (not isinstance(value, str) or len(value) > most):
        raise Refused("message", f"{key}: must be a text of at most {most} characters")
    return value


def _budget(values: dict[str, Any]) -> float | None:
    value = values.get("budget_ms")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e5:
        raise Refused("message", "budget_ms: must be a positive number of milliseconds")
    return float(value)


def _mode(values: dict[str, Any]) -> StreamMode:
    mode = values.get("mode", "every")
    if mode == "realtime":
        return "realtime"
    if mode == "every":
        return "every"
    raise Refused("message", "mode: must be realtime or every")


def error(code: str, message: str, frame: int | None = None) -> str:
    """Return the text that tells of an error."""
    about = {} if frame is None else {"frame": frame}
    return json.dumps({"type": "error", "code": code, "message": message, **about})


def end(reason: str) -> str:
    """Return the last text of a stream."""
    return json.dumps({"type": "end", "reason": reason, "termination_reason": reason})


def event(name: str, **about: object) -> str:
    """Return the text that tells what happened: resumed, model, token, heartbeat."""
    return json.dumps({"type": name, **about})

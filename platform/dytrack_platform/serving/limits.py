"""What one server allows: sizes, rates, counts and waits, all of them bounded."""

from dataclasses import dataclass, fields

from dytrack_model.config import require
from dytrack_platform.serving.planning import Mode


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Bounds of one replica."""

    connections: int = 1200
    """Open WebSockets, started or not."""
    streams: int = 64
    """Of them, those that are started."""
    targets: int = 16
    """Of one stream."""
    frame_bytes: int = 8 * 2**20
    """Of one encoded frame."""
    pixels: int = 4096 * 4096
    """Of one frame, read from its header before anything is decoded."""
    text_bytes: int = 64 * 2**10
    """Of one message; a resume token may be as long as a frame."""
    fps: float = 240.0
    """Frames of one stream in a second; beyond it the server reads more slowly."""
    queued: int = 4
    """Frames of one stream that wait in the mode ``every``; then the server stops reading."""
    waiting_bytes: int = 32 * 2**20
    """What one connection sent and nobody has read yet, where not reading does not hold a client
    back; beyond it the connection ends."""
    idle_s: float = 60.0
    """Time without a frame or a message after which a stream ends."""
    send_s: float = 15.0
    """Time that one answer may take to be taken in."""
    heartbeat_s: float = 10.0
    """Quiet time after which the server says that it is there."""
    drain_s: float = 20.0
    """Time in which streams end when the server stops."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            require(value > 0, f"{field.name}: must be positive, got {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How one replica serves."""

    limits: Limits = Limits()
    deadline_ms: float = 40.0
    """Time in which an answer should be there, for who waits for whom."""
    mode: Mode = "stages"
    """How frames are batched: stages, or whole for a comparison."""
    regroup: bool = True
    """Whether frames may wait for others where that pays."""
    audit_every: int = 50
    """One frame in so many is run on to full depth after its answer; 0: none."""
    correct: bool = False
    """Whether a stream's thresholds follow its audits."""
    token: str = ""
    """What clients have to show; empty: nothing."""
    holds_back: bool = True
    """Whether a client is held back by not reading. Behind the proxy of Ray Serve it is not: the
    proxy reads on and keeps everything, so what waits is bounded here."""
    secret: str = ""
    """Key of resume tokens, shared by all replicas."""
    poll_s: float = 5.0
    """Time between two looks at the aliases of the registry."""

    def __post_init__(self) -> None:
        require(self.mode in ("stages", "whole"), f"mode: stages or whole, got {self.mode!r}")
        require(self.audit_every >= 0, f"audit_every: must not be negative, got {self.audit_every}")
        for name in ("deadline_ms", "poll_s"):
            require(getattr(self, name) > 0, f"{name}: must be positive")

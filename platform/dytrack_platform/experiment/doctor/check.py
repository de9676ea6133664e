"""What was looked at, and what came of it."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that was looked at."""

    check: str
    ok: bool
    detail: str
    cure: str = ""
    """What to do; empty where nothing is wrong."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What to look at."""

    ray_address: str | None = None
    """A cluster, as ``RAY_ADDRESS``; None for this machine."""
    dashboard: str | None = None
    """Where jobs would be sent."""
    mlflow_uri: str = ""
    storage: str | None = None
    data: tuple[str, ...] = ()
    gpus: int = 0
    """GPUs that the work needs."""

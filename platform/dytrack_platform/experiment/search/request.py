"""What is asked of a search, how far it is, and what it gives."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dytrack_platform.config import ExperimentConfig
from dytrack_platform.config.schema import ResidentSource
from dytrack_platform.config.search import Mode
from dytrack_platform.experiment.search.front.members import Front
from dytrack_platform.experiment.search.points import threshold_front as solving
from dytrack_platform.experiment.search.points.latency import (
    Measuring,
)
from dytrack_platform.experiment.search.trials.record import SearchRecord, TrialRecord
from dytrack_platform.storage import files


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is asked for."""

    config: ExperimentConfig
    mode: Mode = "full"
    model: str | None = None
    """Mode post-hoc: a tracker's folder, a run's, or a name of the registry."""
    source: ResidentSource | None = None
    """Held-out sequences for the closed loop."""
    out: str | None = None
    """Folder of the search; None: ``train.storage`` and the recipe's name and mode."""
    resume: bool = False
    """Refuse to begin anew."""
    how: Measuring = field(default_factory=Measuring)

    @property
    def location(self) -> str:
        """The search's folder or URL."""
        if self.out is not None:
            return files.absolute(self.out)
        config = self.config
        ending = "search" if self.mode == "full" else self.mode
        return f"{files.absolute(config.train.storage)}/{config.name}-{ending}"


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a search is."""

    trials: tuple[TrialRecord, ...]
    budget: int
    hypervolume: float
    points: tuple[solving.Point, ...]
    """The front so far."""
    elapsed: float
    """Seconds since this command began."""
    fresh: int
    """Trials that this command finished."""

    @property
    def seconds_left(self) -> float | None:
        """At the present pace; None before the first trial has ended."""
        ended = sum(trial.status != "running" for trial in self.trials)
        if self.fresh == 0:
            return None
        return max(0.0, self.elapsed / self.fresh * (self.budget - ended))


@dataclass(frozen=True, kw_only=True, slots=True)
class Searched:
    """A finished search."""

    front: Front
    record: SearchRecord
    run_id: str
    folder: Path
    files: tuple[Path, ...]


Show = Callable[[Standing], None]
Say = Callable[[str], None]

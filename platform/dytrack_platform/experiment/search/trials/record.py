"""The state of a search: one JSON file, written whole after every event. Nothing is unpickled.

A killed search goes on from it under the same recipe and data, with as many trials or more.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from dytrack_platform.config import ExperimentConfig, flatten, to_dict
from dytrack_platform.config.search import Mode
from dytrack_platform.errors import ConfigurationError, DataError, StorageError
from dytrack_platform.experiment.search.points.threshold_front import Point, volume
from dytrack_platform.experiment.search.trials.trial import EPOCH, METRIC, point_from_dict
from dytrack_platform.storage import files
from dytrack_platform.storage.outputs import MADE_BY

FILE = "search.json"
_FORMAT = 1
_GROWING = ("search.trials", "search.max_concurrent", "search.members", "search.tolerance")
"""Keys that a continued search may have other values of: no finished trial depends on them."""

Status = Literal["running", "finished", "stopped", "failed"]


@dataclass(kw_only=True, slots=True)
class TrialRecord:
    """What is known of one trial."""

    number: int
    changes: dict[str, Any]
    """Dotted keys and values that differ from the recipe."""
    status: Status = "running"
    """stopped: the scheduler ended it early."""
    reports: list[dict[str, Any]] = field(default_factory=list)
    """One for each epoch: epoch, hypervolume, losses, memory_megabytes, at (seconds since the
    trial began, in its last process)."""
    points: list[dict[str, Any]] = field(default_factory=list)
    """Of the last report; see :class:`~.threshold_front.Point`."""
    reason: str = ""
    """Why it failed."""
    seconds: dict[str, float] = field(default_factory=dict)
    """In all, in training steps and in evaluation."""
    began: float = field(default_factory=time.time)
    host: str = ""
    """Address of the node that it last reported from."""

    @property
    def name(self) -> str:
        """Its name in MLflow."""
        return f"trial-{self.number:03d}"

    @property
    def hypervolume(self) -> float | None:
        """Of its last report."""
        return float(self.reports[-1][METRIC]) if self.reports else None

    @property
    def kept_points(self) -> list[Point]:
        """Its points; none of a trial that failed."""
        if self.status == "failed":
            return []
        return [point_from_dict(values) for values in self.points]


class SearchRecord:
    """The trials of a search, on disk at every moment."""

    def __init__(self, location: str, content: dict[str, Any]) -> None:
        self._location, self._content = location, content
        self.trials = [TrialRecord(**values) for values in content["trials"]]
        self.before_write: Callable[[], None] = lambda: None
        """Raises where this command may not write here any more."""

    @classmethod
    def open(
        cls, location: str, mode: Mode, config: ExperimentConfig, data: Mapping[str, Any]
    ) -> "SearchRecord":
        """Read the record of a search, or begin one.

        Args:
            location: The search's folder or URL.
            mode: Of the search.
            config: The recipe now.
            data: Fingerprint of the data now.

        Raises:
            ConfigurationError: It was begun with another recipe; the message names the first key.
            DataError: It was begun on other data.
            StorageError: The record is damaged.
        """
        recipe = to_dict(config)
        content = files.read_json(f"{location}/{FILE}")
        if content is None:
            content = {
                "generator": MADE_BY,
                "format": _FORMAT,
                "mode": mode,
                "recipe": recipe,
                "data": dict(data),
            }
            return cls(location, {**content, "run_id": None, "spent": 0.0, "trials": []})
        keys = {"format", "mode", "recipe", "data", "run_id", "spent", "trials"}
        if not isinstance(content, dict) or not keys <= set(content):
            raise StorageError(f"{location}/{FILE}: is no record of a search; remove that folder")
        _require_same(content, recipe, mode, location)
        if content["data"] != json.loads(json.dumps(data)):
            changed = [
                k for k in {*content["data"], *data} if content["data"].get(k) != data.get(k)
            ]
            raise DataError(
                f"data changed since the search in {location} began: {', '.join(sorted(changed))}: "
                "restore them, or search under another name"
            )
        content["recipe"] = recipe
        return cls(location, content)

    @property
    def run_id(self) -> str | None:
        """The search's run in MLflow."""
        found = self._content["run_id"]
        return None if found is None else str(found)

    @run_id.setter
    def run_id(self, value: str | None) -> None:
        self._content["run_id"] = value
        self.save()

    def unfinished(self) -> list[TrialRecord]:
        """Return the trials that were interrupted."""
        return [trial for trial in self.trials if trial.status == "running"]

    def begin(self, changes: Mapping[str, Any]) -> TrialRecord:
        """Note a new trial."""
        trial = TrialRecord(number=len(self.trials), changes=dict(changes))
        self.trials.append(trial)
        self.save()
        return trial

    def report(self, trial: TrialRecord, metrics: Mapping[str, Any], at: float) -> None:
        """Note a report; one of an epoch that is there already takes its place."""
        row = {name: metrics[name] for name in (EPOCH, METRIC, "losses", "memory_megabytes")}
        trial.reports = [r for r in trial.reports if r[EPOCH] < row[EPOCH]]
        trial.reports.append({**row, "at": at})
        trial.points = json.loads(metrics["points"])
        trial.host = str(metrics.get("node_ip", ""))
        self.save()

    def end(self, trial: TrialRecord, status: Status, reason: str = "") -> None:
        """Note how a trial ended."""
        trial.status, trial.reason = status, reason
        self.save()

    def union(self) -> list[Point]:
        """Return the points of all trials."""
        return [point for trial in self.trials for point in trial.kept_points]

    def hypervolume(self, objectives: tuple[str, ...], reference: tuple[float, ...]) -> float:
        """Return the hypervolume of the union."""
        return volume(self.union(), objectives, reference)

    def save(self) -> None:
        """Write it whole.

        Raises:
            StorageError: There is no space or no permission, or another command took over.
        """
        self.before_write()
        self._content["trials"] = [asdict(trial) for trial in self.trials]
        text = json.dumps(self._content, default=_plain)
        files.write_bytes(f"{self._location}/{FILE}", (text + "\n").encode())

    def to_dict(self) -> dict[str, Any]:
        """Return what the file holds."""
        return {**self._content, "trials": [asdict(trial) for trial in self.trials]}


def _require_same(
    content: Mapping[str, Any], recipe: Mapping[str, Any], mode: str, location: str
) -> None:
    if content["mode"] != mode:
        raise ConfigurationError(
            f"--mode: {location} holds a search of mode {content['mode']}, asked for is {mode}: "
            "choose another name or --out"
        )
    old, new = flatten(content["recipe"]), flatten(recipe)
    changed = sorted(
        key for key in old | new if old.get(key) != new.get(key) and key not in _GROWING
    )
    if changed:
        key = changed[0]
        raise ConfigurationError(
            f"{key}: was {old.get(key)!r} when the search in {location} began and is "
            f"{new.get(key)!r} ({len(changed)} keys differ): a search goes on with its own recipe; "
            "choose another name or --out, or remove that folder"
        )


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no JSON")

"""The models that a replica serves: loaded beside the running one, checked, then swapped.

A reference such as ``models:/dytrack@champion`` is looked up again and again. Where it leads to
another version, that one is loaded and tried while the old one serves; streams move to it at their
next frame, and the old one goes when its last stream has moved. A version that does not load or
does not track is refused, and the old one stays.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from dytrack_platform.errors import ConfigurationError, ModelLookupError, first_line
from dytrack_platform.serving.batching import ServedTracker
from dytrack_platform.serving.limits import Settings
from dytrack_platform.serving.metrics import Metrics
from dytrack_platform.serving.planning import Planner
from dytrack_platform.serving.scheduler import Ran, Scheduler

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from.

    Attributes:
        name: What clients call it.
        version: Looks up which version its reference leads to now.
        load: Loads that version.
    """

    name: str
    version: Callable[[], str]
    load: Callable[[str], ServedTracker]


class Model:
    """One version that is loaded, with a scheduler of its own."""

    def __init__(
        self, name: str, version: str, served: ServedTracker, settings: Settings, metrics: Metrics
    ) -> None:
        self.name, self.version = name, version
        self.engine, self.points = served.engine, served.points
        self.table = served.table
        planner = Planner(served.table, served.runner.most_rows, settings.regroup)

        def report(ran: Ran) -> None:
            metrics.stage.labels(ran.graph).observe(ran.seconds * 1e3)
            metrics.rows.labels(ran.graph).observe(ran.rows)

        self.scheduler = Scheduler(served.runner, planner, settings.mode, report)
        self.users = 0
        """Streams that are on it."""

    def about(self) -> dict[str, Any]:
        """Describe it in plain JSON."""
        config = self.engine.config
        return {
            "name": self.name,
            "version": self.version,
            "exits": list(config.exits),
            "points": [*(point.name for point in self.points), "full"],
            "runtime": self.engine.runtime,
            "precision": self.engine.precision,
            "batch_ms": self.table.to_dict(),
        }


def require_names(sources: Sequence[Source]) -> None:
    """Refuse two models that clients could not tell apart.

    Raises:
        ConfigurationError: Two have one name.
    """
    for name, count in Counter(source.name for source in sources).items():
        if count > 1:
            raise ConfigurationError(
                f"--model: two models are called {name}; give one of the folders another name"
            )


def require_sound(served: ServedTracker) -> None:
    """Run every exit on a made picture, and refuse a tracker that fails or gives no numbers.

    A tracker's own boxes would not show it: what is not a number is clipped to the frame's corner.

    Raises:
        ModelLookupError: It gives what is not a number.
        DyTrackError: It fails.
    """
    engine, config = served.engine, served.engine.config
    rng = np.random.default_rng(0)
    template, *searches = [
        rng.integers(0, 256, (1, side, side, 3), dtype=np.uint8)
        for side in (config.template_size, config.search_size, config.narrow_size)
        if side
    ]
    state = engine.embed_template(template, np.array([[0.5, 0.5, 0.5, 0.5]]))
    for search in searches:
        tensors = engine.begin(search, state)
        for exit_index in range(engine.exit_count):
            engine.advance(exit_index, tensors)
            said = [torch.from_numpy(engine.decide(exit_index, tensors))]
            for values in (*said, *engine.locate(exit_index, tensors)):
                if not bool(torch.isfinite(values).all()):
                    raise ModelLookupError("the tracker gives what is not a number")


@dataclass
class _Slot:
    source: Source
    model: Model
    refused: str = ""
    """Version that was tried and cannot be used."""
    reason: str = ""
    old: list[Model] = field(default_factory=list)


class Models:
    """Every model of a replica.

    Args:
        sources: At least one; the first is the default.
        settings: How it serves.
        metrics: Where it counts.

    Raises:
        ConfigurationError: Two have one name.
        DyTrackError: A model cannot be loaded.
    """

    def __init__(self, sources: Sequence[Source], settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._slots: dict[str, _Slot] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        require_names(sources)
        for source in sources:
            version = source.version()
            self._slots[source.name] = _Slot(source, self._open(source, version))
        self._watch = threading.Thread(target=self._poll, name="dytrack-models", daemon=True)
        self._watch.start()

    @property
    def names(self) -> list[str]:
        """What clients may ask for, the default first."""
        return list(self._slots)

    def current(self, name: str | None = None) -> Model:
        """Return the version that serves a name now.

        Raises:
            KeyError: There is no such model.
        """
        return self._slots[name or self.names[0]].model

    def take(self, name: str | None) -> Model:
        """Put a stream on a name's version.

        Raises:
            KeyError: There is no such model.
        """
        model = self.current(name)
        with self._lock:
            model.users += 1
        return model

    def leave(self, model: Model) -> None:
        """Take a stream off a version."""
        with self._lock:
            model.users -= 1

    def about(self) -> list[dict[str, Any]]:
        """Describe every model in plain JSON."""
        rows = []
        for slot in self._slots.values():
            row = slot.model.about() | {"streams": slot.model.users}
            row["leaving"] = [old.version for old in slot.old]
            if slot.refused:
                row["refused"] = {"version": slot.refused, "reason": slot.reason}
            rows.append(row)
        return rows

    def stop(self) -> None:
        """End every scheduler."""
        self._stopped.set()
        for slot in self._slots.values():
            for model in (slot.model, *slot.old):
                model.scheduler.stop()

    def look(self) -> None:
        """Look every reference up once, and load what is new."""
        for slot in self._slots.values():
            self._retire(slot)
            try:
                version = slot.source.version()
            except Exception as error:  # noqa: BLE001  (the watch goes on, whatever the store does)
                _LOG.warning("%s cannot be looked up: %s", slot.source.name, first_line(error))
                continue
            if version in (slot.model.version, slot.refused):
                continue
            try:
                model = self._open(slot.source, version)
            except Exception as error:  # noqa: BLE001  (whatever is wrong with it, the old one stays)
                slot.refused, slot.reason = version, first_line(error)[:300]
                self._metrics.refused.inc()
                _LOG.warning("%s version %s is refused: %s", slot.source.name, version, slot.reason)
                continue
            slot.old.append(slot.model)
            slot.model, slot.refused = model, ""

    def _open(self, source: Source, version: str) -> Model:
        served = source.load(version)
        require_sound(served)
        self._metrics.model.labels(source.name, version).set(1)
        return Model(source.name, version, served, self._settings, self._metrics)

    def _retire(self, slot: _Slot) -> None:
        for model in [old for old in slot.old if old.users == 0]:
            slot.old.remove(model)
            model.scheduler.stop()
            self._metrics.model.remove(model.name, model.version)

    def _poll(self) -> None:
        while not self._stopped.wait(self._settings.poll_s):
            self.look()

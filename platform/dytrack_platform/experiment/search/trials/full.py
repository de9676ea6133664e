"""Mode full: every trial trains, over Ray Tune; what shows no promise ends after some epochs."""

import ctypes
import gc
import json
import math
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

from dytrack_platform.experiment.search.trials.sampler import (  # Ray's environment first
    ListedSearch,
    RecordedSearch,
)

import ray  # isort: skip
import ray.tune
import torch
from ray.tune import Callback, FailureConfig, RunConfig, TuneConfig, Tuner
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from dytrack_model.cost import planned_gmacs
from dytrack_platform.config import ExperimentConfig, resolve, to_dict
from dytrack_platform.errors import ConfigurationError
from dytrack_platform.experiment.search.points.latency import Latency, latency_from, planned_costs
from dytrack_platform.experiment.search.space import Space, Values
from dytrack_platform.experiment.search.trials import halving
from dytrack_platform.experiment.search.trials.record import SearchRecord, TrialRecord
from dytrack_platform.experiment.search.trials.trial import (
    EPOCH,
    METRIC,
    Job,
    has_tracker,
    train_lean,
)

_REASON = 300
_NODE_SHORT = "due to the node running low on memory"
"""What Ray's memory monitor says of a process that it ends, above a page of numbers."""
_REFUSED_MEMORY = ("memoryerror", "unable to allocate", "allocate memory", "out of memory")
"""What Python, NumPy, torch and CUDA say where they are given no memory."""
_SPARE = "lower search.max_concurrent or train.batch_size"
_WAITING_BYTES = 300e6
"""Memory of a trial whose training runs in processes of its own."""


@dataclass(kw_only=True)
class Watching:
    """What is told of trials while they run; the default listens to nothing."""

    began: Callable[[TrialRecord], None] = field(default=lambda trial: None)
    reported: Callable[[TrialRecord, dict[str, Any]], None] = field(default=lambda trial, m: None)
    ended: Callable[[TrialRecord], None] = field(default=lambda trial: None)


def run_trials(
    config: ExperimentConfig,
    job: Job,
    record: SearchRecord,
    watching: Watching,
    timed: Callable[[Values], Latency | None] = lambda changes: None,
) -> None:
    """Run the trials that the recipe's budget leaves, those that were interrupted first.

    Args:
        config: The recipe, with absolute paths.
        job: What trials share.
        record: What is known, and where everything is noted.
        watching: Is told of every event, in this process.
        timed: Returns times of a configuration's exits where they count.

    Raises:
        ConfigurationError: No configuration keeps the constraints.
    """
    search = config.search
    note_finished(config, job, record, watching)
    done = len(record.trials) - len(record.unfinished())
    searcher = RecordedSearch(
        Space(config), search, record, lambda changes: allowed(config, changes), timed
    )
    stopping = halving.scheduler(config, record, job)
    _fit(config, job, record, watching, searcher, search.trials - done, stopping)


def run_listed(
    config: ExperimentConfig,
    job: Job,
    record: SearchRecord,
    watching: Watching,
    listed: Sequence[Values],
) -> None:
    """Run trials whose changes are given, but for those that ended already; none is stopped.

    Args:
        config: The recipe, with absolute paths.
        job: What trials share.
        record: What is known, and where everything is noted.
        watching: Is told of every event.
        listed: Changes of all trials, in the order of their numbers.
    """
    note_finished(config, job, record, watching)
    searcher = ListedSearch(record, listed)
    wanted = len(searcher.waiting)
    _fit(config, job, record, watching, searcher, wanted, halving.nothing_stops())


def note_finished(
    config: ExperimentConfig, job: Job, record: SearchRecord, watching: Watching
) -> None:
    """Note trials as finished that left all they had to when the search was killed.

    Between a trial's last report and the word that it ended a search can be killed too.
    """
    for trial in record.unfinished():
        epochs = int(trial.changes.get("train.epochs", config.search.epochs))
        whole = bool(trial.reports) and trial.reports[-1][EPOCH] >= epochs
        if whole and has_tracker(job, trial.number):
            record.end(trial, "finished")
            watching.ended(trial)


def _fit(
    config: ExperimentConfig,
    job: Job,
    record: SearchRecord,
    watching: Watching,
    searcher: RecordedSearch | ListedSearch,
    wanted: int,
    stopping: TrialScheduler,
) -> None:
    if wanted <= 0:
        return
    search = config.search
    lean = config.train.workers == 1
    resources = {"CPU": config.train.cpus_per_worker}
    if config.train.gpu:
        resources["GPU"] = search.gpu_share
    if not lean:
        # The workers of the training inside take what they need; the trial only waits for them.
        resources = {"memory": _WAITING_BYTES}
    trainable = ray.tune.with_resources(ray.tune.with_parameters(_train, job=job), resources)
    # What Ray writes beside the trials is of no use to us: the record says all.
    folder = tempfile.mkdtemp(prefix="dytrack-tune-")
    events = _Events(searcher, record, watching)
    try:
        Tuner(
            trainable,
            tune_config=TuneConfig(
                num_samples=wanted,
                max_concurrent_trials=search.max_concurrent,
                search_alg=searcher,
                scheduler=stopping,
                reuse_actors=lean,
                # Ray would name folders after all that a trial changes, as long as that may be.
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=RunConfig(
                name="trials",
                storage_path=folder,
                verbose=0,
                callbacks=[events],
                failure_config=FailureConfig(max_failures=0),
            ),
        ).fit()
    except ray.tune.TuneError:
        # Ray makes a text of what our own code raised; the error itself says more.
        error = events.error or searcher.error or getattr(stopping, "error", None)
        if error is None:
            raise
        raise error from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def allowed(config: ExperimentConfig, changes: Values) -> bool:
    """Say whether changes make a valid recipe whose cheapest exit keeps the constraints."""
    try:
        model = resolve(to_dict(config), changes).model
    except ConfigurationError:
        return False
    costs = planned_costs(model)
    for bound in config.search.bounds:
        if bound.name == "gmacs" and bound.most and planned_gmacs(model)[0] > bound.value:
            return False
        if bound.name == "params" and not bound.kept(float(costs.stop["params"][-1])):
            return False
    return True


def _train(drawn: dict[str, Any], job: Job) -> None:
    """Run one trial in a process of Ray Tune."""
    try:
        _train_one(drawn, job)
    finally:
        _tidy()


def _train_one(drawn: dict[str, Any], job: Job) -> None:
    changes = json.loads(drawn["changes"])
    row = json.loads(drawn["latency"])
    latency = None if row is None else latency_from(row)
    config = resolve(job.recipe, changes)
    if config.train.workers > 1:
        from dytrack_platform.experiment.search.trials.nested import train_nested

        train_nested(job, int(drawn["number"]), changes, latency)
    else:
        train_lean(job, int(drawn["number"]), changes, latency, ray.tune.report)


def _tidy() -> None:
    """Give back what a trial leaves in its process, which goes on to the next one.

    Without it a process grew by 50 to 100 MB a trial: the C library keeps an arena for each thread.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):  # other C libraries have no such call
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _noted(call: Callable[..., None]) -> Callable[..., None]:
    """Keep what a callback raises: Ray passes on no more than its text."""

    @wraps(call)
    def noted(self: "_Events", *given: Any, **named: Any) -> None:  # noqa: ANN401
        try:
            call(self, *given, **named)
        except Exception as error:
            self.error = self.error or error
            raise

    return noted


class _Events(Callback):
    """Notes what happens to trials, in the driver."""

    def __init__(
        self, searcher: RecordedSearch | ListedSearch, record: SearchRecord, watching: Watching
    ) -> None:
        self._searcher, self._record, self._watching = searcher, record, watching
        self._began: dict[str, float] = {}
        self._broken: set[str] = set()
        self.error: Exception | None = None
        """What was raised here."""

    def __getstate__(self) -> dict[str, Any]:
        """Give nothing to the copy that Ray writes down: nothing is ever read back."""
        return {}

    @_noted
    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: object
    ) -> None:
        self._began[trial.trial_id] = time.monotonic()
        self._watching.began(self._searcher.trials[trial.trial_id])

    @_noted
    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: object,
    ) -> None:
        if METRIC not in result:
            return
        own = self._searcher.trials[trial.trial_id]
        if not math.isfinite(result[METRIC]):
            self._broken.add(trial.trial_id)
            return
        at = time.monotonic() - self._began[trial.trial_id]
        own.seconds = {"all": at, **result["seconds"]}
        self._record.report(own, result, at)
        self._watching.reported(own, result)

    @_noted
    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: object
    ) -> None:
        own = self._searcher.trials[trial.trial_id]
        if own.status != "running":
            return
        own.seconds["all"] = time.monotonic() - self._began[trial.trial_id]
        if trial.trial_id in self._broken:
            self._record.end(own, "failed", "its hypervolume is not finite")
        elif own.hypervolume is None:
            self._record.end(own, "failed", "it ended without a report")
        else:
            whole = own.reports[-1][EPOCH] >= self._searcher.epochs_of(trial.trial_id)
            self._record.end(own, "finished" if whole else "stopped")
        self._watching.ended(own)

    @_noted
    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: object
    ) -> None:
        own = self._searcher.trials.get(trial.trial_id)
        if own is None:
            return
        self._record.end(own, "failed", reason_of(trial))
        self._watching.ended(own)


def reason_of(trial: Trial) -> str:
    """Say in one line why a trial ended, from the text that Ray keeps of its error."""
    text = Path(trial.error_file).read_text() if trial.error_file else ""
    lowered = text.lower()
    if _NODE_SHORT in lowered:
        return f"its node ran out of memory, and Ray ended it; {_SPARE}"
    if "actor died" in lowered or "worker process" in lowered or "actorunavailable" in lowered:
        return "its process died: it was killed, or ran out of memory"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = lines[-1] if lines else "for a reason that Ray did not keep"
    # Ray writes the class with the module that it lies in.
    said = re.sub(r"^(?:\w+\.)+(\w+: )", r"\1", said)[:_REASON]
    if any(words in said.lower() for words in _REFUSED_MEMORY):
        return f"it ran out of memory ({said}); {_SPARE}"
    return said

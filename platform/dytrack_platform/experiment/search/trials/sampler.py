"""What chooses configurations: Ray's OptunaSearch, with what was seen to go wrong mended.

- A trial that fails after a report is told as failed; Ray tells its last value as a success.
- A value that is not finite is told as failed; Ray's call is refused with a warning, and the trial
  would stay running for ever and push the sampler away from there.
- A trial that the scheduler stopped is told as pruned with what it had reported.
- Finished trials are fed in with values, whatever the sampler; unfinished ones come first again.

It keeps no state of its own: after a kill everything comes from the search's record.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dytrack_platform.experiment.cluster import session  # noqa: F401  (Ray's environment first)

import optuna  # isort: skip
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from dytrack_model.config import require
from dytrack_platform.config.search import SearchConfig
from dytrack_platform.errors import ConfigurationError, DyTrackError
from dytrack_platform.experiment.search.points.latency import Latency
from dytrack_platform.experiment.search.space import Range, Space, Values
from dytrack_platform.experiment.search.trials.record import SearchRecord, TrialRecord
from dytrack_platform.experiment.search.trials.trial import EPOCH, METRIC

STARTUP = 10
"""Trials at random before TPE and GP begin to model; half of the trials where they are fewer."""
MANY = 200
"""Trials from which on an evolving population pays: below it loses to chance."""
_TRIES = 200


def make_sampler(search: SearchConfig, known: int = 0) -> optuna.samplers.BaseSampler:
    """Return the sampler that a recipe asks for.

    Args:
        search: Sampler, trials and seed.
        known: Trials that are there already: a search that goes on must not draw them again.

    Raises:
        ConfigurationError: The Gaussian process lacks SciPy.
    """
    kind = search.sampler
    if kind == "auto":
        kind = "nsga2" if search.trials >= MANY else "tpe"
    seed = search.seed + known
    startup = min(STARTUP, max(1, search.trials // 2))
    if kind == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if kind == "nsga2":
        return optuna.samplers.NSGAIISampler(
            population_size=max(2, min(50, search.trials // 8)), seed=seed
        )
    if kind == "gp":
        try:
            import scipy  # type: ignore[import-untyped]  # noqa: F401  (only asked for)
        except ImportError:
            raise ConfigurationError(
                "search.sampler: gp needs scipy, which is not installed; take tpe"
            ) from None
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)


def distribution(limits: Range) -> BaseDistribution:
    """Return Optuna's name for what a number is drawn from."""
    if not limits.ordered:
        return CategoricalDistribution(range(int(limits.low), int(limits.high) + 1))
    if limits.whole:
        return IntDistribution(int(limits.low), int(limits.high))
    return FloatDistribution(limits.low, limits.high, log=limits.log)


class RecordedSearch(OptunaSearch):
    """Suggests configurations, and tells the sampler the truth about what came of them.

    Args:
        space: The space.
        search: Sampler, epochs and seed.
        record: What is known; new trials are noted there.
        allowed: Says of a configuration whether a trial can be made of it that keeps the
            constraints.
        timed: Returns the times of a configuration's exits where they count, else None.
    """

    def __init__(
        self,
        space: Space,
        search: SearchConfig,
        record: SearchRecord,
        allowed: Callable[[Values], bool],
        timed: Callable[[Values], Latency | None],
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        distributions = {key: distribution(one) for key, one in space.ranges().items()}
        super().__init__(
            space=distributions,
            metric=METRIC,
            mode="max",
            sampler=make_sampler(search, len(record.trials)),
        )
        self._own, self._search, self._record = space, search, record
        self._allowed, self._timed = allowed, timed
        self._waiting = record.unfinished()
        self.trials: dict[str, TrialRecord] = {}
        """By Ray's identifiers."""
        self.error: Exception | None = None
        """What was raised here."""
        for trial in record.trials:
            if trial.status != "running":
                self._feed(trial, distributions)

    @property
    def _study(self) -> Any:  # noqa: ANN401  (Optuna is untyped)
        return self._ot_study

    def _feed(self, trial: TrialRecord, distributions: Mapping[str, BaseDistribution]) -> None:
        """Tell the sampler of a trial of an earlier run."""
        numbers = self._own.encode(trial.changes)
        states = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED}
        value = trial.hypervolume
        state = states.get(trial.status, TrialState.FAIL)
        if value is None:
            state = TrialState.FAIL
        known = {int(report[EPOCH]): float(report[METRIC]) for report in trial.reports}
        self._study.add_trial(
            optuna.trial.create_trial(
                state=state,
                value=value if state == TrialState.COMPLETE else None,
                params=numbers,
                distributions=dict(distributions),
                intermediate_values=known,
            )
        )

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the next trial: one that was interrupted, or a new one.

        Raises:
            ConfigurationError: No configuration that keeps the constraints was found.
        """
        if self._waiting:
            trial = self._waiting.pop(0)
            self._study.enqueue_trial(self._own.encode(trial.changes))
            self._ot_trials[trial_id] = self._study.ask(fixed_distributions=self._space)
        else:
            try:
                trial = self._record.begin(self._draw(trial_id))
            except DyTrackError as error:
                self.error = error  # Ray passes on no more than its text
                raise
        self.trials[trial_id] = trial
        latency = self._timed(trial.changes)
        # One flat dictionary of plain values: Ray takes nested ones apart.
        return {
            "number": trial.number,
            "changes": json.dumps(trial.changes),
            "latency": json.dumps(None if latency is None else asdict(latency)),
        }

    def _draw(self, trial_id: str) -> Values:
        """Ask until a configuration can be tried and was not tried before, if there is one."""
        seen = {json.dumps(t.changes, sort_keys=True): t for t in self._record.trials}
        for attempt in range(_TRIES):
            asked = self._study.ask(fixed_distributions=self._space)
            changes = self._own.decode(asked.params)
            before = seen.get(json.dumps(changes, sort_keys=True))
            if not self._allowed(changes):
                # Worth nothing, and that costs nothing to find out.
                self._study.tell(asked, 0.0)
            elif before is not None and attempt < _TRIES // 4:
                known = before.hypervolume  # None: it is still running, or failed
                state = None if known is not None else TrialState.FAIL
                self._study.tell(asked, known, state=state)
            else:
                self._ot_trials[trial_id] = asked
                return changes
        bounds = " and ".join(self._search.constraints)
        if not bounds:
            raise ConfigurationError(
                f"search.space: {_TRIES} configurations in a row make no valid recipe, although "
                "each key's values do by themselves; narrow it"
            )
        raise ConfigurationError(
            f"search.constraints: {_TRIES} configurations in a row break {bounds}, or make no "
            "valid recipe; loosen them, or narrow search.space"
        )

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Take a report."""
        value = result.get(METRIC)
        if value is not None and math.isfinite(value):
            self._ot_trials[trial_id].report(float(value), int(result[EPOCH]))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the sampler how a trial ended."""
        if trial_id in self._completed_trials or trial_id not in self._ot_trials:
            return
        self._completed_trials.add(trial_id)
        asked, value = self._ot_trials[trial_id], (result or {}).get(METRIC)
        if error or value is None or not math.isfinite(value):
            self._study.tell(asked, state=TrialState.FAIL)
        elif int((result or {})[EPOCH]) < self.epochs_of(trial_id):
            self._study.tell(asked, state=TrialState.PRUNED)
        else:
            self._study.tell(asked, float(value))

    def epochs_of(self, trial_id: str) -> int:
        """Return how many epochs a trial has if nothing stops it."""
        return int(self.trials[trial_id].changes.get("train.epochs", self._search.epochs))

    def __getstate__(self) -> dict[str, Any]:
        """Give nothing to the copy that Ray writes down: nothing is ever read back."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: the record is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Refuse: nothing is unpickled."""
        require(False, "search: goes on from its own record only")


class ListedSearch(Searcher):
    """Gives trials whose changes are known beforehand, but for those that ended already.

    Args:
        record: What is known; new trials are noted there.
        listed: Changes of all trials, in the order of their numbers.
    """

    def __init__(self, record: SearchRecord, listed: Sequence[Values]) -> None:
        super().__init__(metric=METRIC, mode="max")
        self._record, self._listed = record, listed
        self.trials: dict[str, TrialRecord] = {}
        """By Ray's identifiers."""
        self.error: Exception | None = None
        """What was raised here."""
        # One that failed is tried again by the next command: others build on it.
        ended = {t.number for t in record.trials if t.status in ("finished", "stopped")}
        self.waiting = [n for n in range(len(listed)) if n not in ended]

    def suggest(self, trial_id: str) -> Any:  # noqa: ANN401  (or the word FINISHED)
        """Return the next one."""
        if not self.waiting:
            return str(Searcher.FINISHED)
        number = self.waiting.pop(0)
        known = number < len(self._record.trials)
        trial = self._record.trials[number] if known else self._record.begin(self._listed[number])
        trial.status, trial.reason = "running", ""
        self.trials[trial_id] = trial
        return {
            "number": trial.number,
            "changes": json.dumps(trial.changes),
            "latency": json.dumps(None),
        }

    def epochs_of(self, trial_id: str) -> int:
        """Return how many epochs a trial has."""
        return int(self.trials[trial_id].changes["train.epochs"])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learn nothing."""

    def __getstate__(self) -> dict[str, Any]:
        """Give nothing to the copy that Ray writes down: nothing is ever read back."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: the record is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Refuse: nothing is unpickled."""
        require(False, "search: goes on from its own record only")

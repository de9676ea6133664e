"""What ends trials early: halving on their hypervolume, that knows trials of earlier commands.

Ray's scheduler keeps what trials reported in memory, and a search that goes on would begin with
nothing: its first trials were compared with nobody, and so not stopped. Ours is fed from the
search's record, and knows a trial by its number, which it keeps when it goes on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dytrack_platform.experiment.cluster import session  # noqa: F401  (Ray's environment first)

from ray.tune.experiment import Trial  # isort: skip
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from dytrack_platform.config import ExperimentConfig
from dytrack_platform.errors import DyTrackError
from dytrack_platform.experiment.search.trials.record import SearchRecord, TrialRecord
from dytrack_platform.experiment.search.trials.trial import EPOCH, METRIC, Job, halt

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController


def scheduler(config: ExperimentConfig, record: SearchRecord, job: Job) -> TrialScheduler:
    """Return what ends trials early: halving after 1, 2, 4, … epochs, or nothing.

    Args:
        config: The recipe.
        record: Trials of earlier commands; what they reported is what new ones are compared with.
        job: What trials share.
    """
    most = most_epochs(config)
    if config.search.scheduler == "none" or most < 2:
        return nothing_stops()
    return RecordedHalving(record, most, partial(halt, job) if config.train.workers > 1 else None)


def nothing_stops() -> TrialScheduler:
    """Return what lets every trial run to its end."""
    return FIFOScheduler()  # type: ignore[no-untyped-call]


def most_epochs(config: ExperimentConfig) -> int:
    """Return the most epochs that a trial may have: a space can have that key too."""
    own = config.search.space.get("train.epochs")
    return max([config.search.epochs, *(int(value) for value in (own.corners() if own else ()))])


@dataclass(frozen=True, slots=True)
class _Known:
    """A trial as Ray's scheduler tells it from others."""

    trial_id: str


class RecordedHalving(AsyncHyperBandScheduler):
    """Ray's asynchronous halving, which goes on from a search's record.

    Reports of trials that finished, were stopped or were interrupted are in its rungs from the
    start. Those of failed trials are not: they count for nothing. An interrupted trial that goes on
    is the same one to it, so that no rung holds it twice and no decision on it is taken again.

    Args:
        record: What is known.
        most: Epochs of the longest trial.
        halt: Asks a trial to end, by its number, where Ray must not end it; None: Ray does.
    """

    def __init__(
        self, record: SearchRecord, most: int, halt: Callable[[int], None] | None = None
    ) -> None:
        super().__init__(
            time_attr=EPOCH,
            metric=METRIC,
            mode="max",
            max_t=most,
            grace_period=1,
            reduction_factor=2,
            stop_last_trials=False,
        )
        self._halt = halt
        self.error: DyTrackError | None = None
        """What was raised here."""
        for trial in record.trials:
            if trial.status != "failed":
                self._feed(trial)

    def _feed(self, trial: TrialRecord) -> None:
        known = _known(trial.number)
        super().on_trial_add(None, known)  # type: ignore[arg-type]
        for report in trial.reports:
            super().on_trial_result(None, known, report)  # type: ignore[arg-type]
        super().on_trial_remove(None, known)  # type: ignore[arg-type]

    def on_trial_add(self, tune_controller: "TuneController", trial: Trial) -> None:
        """Take a trial that begins or goes on."""
        super().on_trial_add(tune_controller, _of(trial))

    def on_trial_result(
        self, tune_controller: "TuneController", trial: Trial, result: Mapping[str, Any]
    ) -> str:
        """Say whether a trial goes on after a report."""
        decided = str(super().on_trial_result(tune_controller, _of(trial), dict(result)))
        if decided == TrialScheduler.STOP and self._halt is not None:
            try:
                self._halt(_number(trial))
            except DyTrackError as error:
                self.error = error  # Ray passes on no more than its text
                raise
            return str(TrialScheduler.CONTINUE)  # it ends by itself
        return decided

    def on_trial_complete(
        self, tune_controller: "TuneController", trial: Trial, result: Mapping[str, Any]
    ) -> None:
        """Take a trial's last report."""
        super().on_trial_complete(tune_controller, _of(trial), dict(result))

    def on_trial_remove(self, tune_controller: "TuneController", trial: Trial) -> None:
        """Forget a trial that never began; what it reported stays."""
        super().on_trial_remove(tune_controller, _of(trial))


def _of(trial: Trial) -> Trial:
    return _known(_number(trial))


def _number(trial: Trial) -> int:
    return int(trial.config["number"])


def _known(number: int) -> Trial:
    # Ray's scheduler asks a trial for its identifier only.
    return _Known(f"{number:03d}")  # type: ignore[return-value]

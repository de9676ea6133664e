"""Record a training in MLflow: opened, written through a journal, and always ended."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dytrack_platform.experiment.runs import tracking
from dytrack_platform.experiment.runs.journal import Journal
from dytrack_platform.experiment.runs.watchdog import watched
from dytrack_platform.storage.job import in_job
from dytrack_platform.storage.run_lock import run_lock

_WAIT_S = 20.0
_WAIT_IN_JOB_S = 600.0
"""A job's own folder is removed with it, and nobody could deliver later."""
_WAIT_TOLD_S = 10.0
"""Who tells a command to end kills it soon after: it does not wait for a server any longer."""


@contextmanager
def logged_run(
    name: str,
    folder: Path,
    run_id: str | None,
    say: Callable[[str], None],
    kind: str = "train",
    run: str = "",
) -> Iterator[tuple[str, Journal]]:
    """Open a run, or go on with ``run_id``; yields its id and its journal.

    It ends as FINISHED, FAILED (with the reason as the tag ``failure``) or KILLED, whatever
    happens to this process. Where MLflow does not answer at the end, what it lacks stays in
    ``folder``, and ``say`` tells how to deliver it: by ``run``, the run's folder or URL.

    Raises:
        AccessError: MLflow does not answer at the start, or refuses who asks.
        StorageError: Another command owns the run.
    """
    with run_lock(folder):
        run_id = tracking.begin(name, run_id, kind)
        journal = Journal(folder, lambda entries: tracking.deliver(run_id, folder, entries))
        with watched(folder, run_id):
            journal.start()
            try:
                yield run_id, journal
            except (KeyboardInterrupt, SystemExit) as error:
                journal.tags({"failure": f"told to end ({type(error).__name__})"})
                _end(journal, "KILLED", folder, say, run, _WAIT_TOLD_S)
                raise
            except Exception as error:
                journal.tags({"failure": f"{type(error).__name__}: {error}"[:5000]})
                _end(journal, "FAILED", folder, say, run)
                raise
            _end(journal, "FINISHED", folder, say, run)


def upload(folder: Path, run_id: str) -> None:
    """Deliver what MLflow lacks of a run that nobody is at work on.

    Raises:
        AccessError: MLflow does not answer, or refuses who asks.
        StorageError: A command is at work on the run.
    """
    with run_lock(folder, wait_s=2.0):
        Journal(folder, lambda entries: tracking.deliver(run_id, folder, entries)).deliver_all()


def _end(
    journal: Journal,
    status: str,
    folder: Path,
    say: Callable[[str], None],
    run: str,
    wait_s: float | None = None,
) -> None:
    journal.end(status)
    if wait_s is None:
        wait_s = _WAIT_IN_JOB_S if in_job() else _WAIT_S
    if not journal.stop(wait_s):
        say(
            f"MLflow lacks a part of this run ({journal.trouble or 'it was too slow'}); it is kept "
            f"in {folder}: deliver it with  dytrack upload {run or folder}"
        )

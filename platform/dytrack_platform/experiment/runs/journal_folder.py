"""Where a run's journal lies: in the run's own folder, or near the command where that is a URL.

An object store cannot append to a file, so the journal of a run on ``s3://`` lies on the machine of
its command. A job's own folder is removed with the job and is no place for it; nor does a machine
of a cluster stay for ever. So what MLflow lacks at the end goes beside the run, into
``RUN/journal``, and ``dytrack upload RUN`` finds it there from any machine.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dytrack_platform.errors import DataError, StorageError
from dytrack_platform.experiment.runs.journal import DELIVERED, JOURNAL, Journal
from dytrack_platform.storage import files
from dytrack_platform.storage.job import in_job
from dytrack_platform.storage.run_lock import run_lock

FOLDER = "DYTRACK_JOURNALS"
"""Variable that names another folder for the journals of runs on URLs."""
_KEPT = "journal"


def journal_folder(location: str) -> Path:
    """Return the local folder of a run's journal.

    Args:
        location: Folder or URL of the run.

    Returns:
        The run's own folder, or one for its URL: below ``DYTRACK_JOURNALS`` where that is set,
        below the home folder of the node in a job, in ``journals`` here otherwise.
    """
    if "://" not in location:
        return Path(location)
    name = location.rstrip("/").rpartition("/")[2]
    given = os.environ.get(FOLDER)
    if not given and not in_job():
        return Path("journals") / name
    place = Path(given).expanduser() if given else Path.home() / ".dytrack" / "journals"
    # Runs of one name lie in several buckets, and this folder serves them all.
    return place.absolute() / f"{name}-{hashlib.sha256(location.encode()).hexdigest()[:8]}"


@contextmanager
def kept_beside(location: str, say: Callable[[str], None], *, new: bool) -> Iterator[Path]:
    """Yield the folder of a run's journal; what MLflow lacks after the body goes beside the run.

    Where that fails too, a sentence says so: the journal is not worth the training.

    Args:
        location: Folder or URL of the run.
        say: Called with one-line messages.
        new: The run has no record in MLflow yet. A journal that lies in the folder for its URL is
            then of an earlier run of that name, and set aside.

    Raises:
        StorageError: Another command is at work on the run.
    """
    folder = journal_folder(location)
    if new and "://" in location and (folder / JOURNAL).exists():
        with run_lock(folder):  # whoever is at work there keeps it
            (folder / JOURNAL).replace(folder / f"{JOURNAL}.old")
            (folder / DELIVERED).unlink(missing_ok=True)
    try:
        yield folder
    finally:
        if "://" in location and Journal(folder, _nobody).pending():
            try:
                # The journal itself comes last: what it names is there before it.
                files.put_folder(folder, f"{location}/{_KEPT}", last=JOURNAL)
                say(f"what MLflow lacks lies in {location}/{_KEPT}: dytrack upload {location}")
            except (StorageError, DataError) as error:
                say(f"what MLflow lacks lies on this machine only, in {folder} ({error})")


def deliver_kept(location: str, deliver: Callable[[Path], None]) -> None:
    """Deliver a run's journal, whether it lies on this machine or beside the run.

    Args:
        location: Folder or URL of the run.
        deliver: Called with the folder that holds the journal.

    Raises:
        StorageError: ``deliver`` raised it, or the store does not answer.
    """
    folder = journal_folder(location)
    if "://" not in location or (folder / JOURNAL).is_file():
        deliver(folder)
    kept = f"{location}/{_KEPT}"
    if "://" not in location or not files.exists(f"{kept}/{JOURNAL}"):
        return
    with files.local_copy(kept) as copied:
        deliver(copied)
    files.remove_folder(kept)  # MLflow has it all


def _nobody(_: object) -> None:
    """Take in nothing: the journal is only asked what is left."""

"""Runs in MLflow: started, logged in batches, and always ended with what became of them."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# At its defaults MLflow tries an unreachable server for minutes; the journal has its own patience.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

import mlflow
from alembic.util import CommandError
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from dytrack_platform.errors import AccessError, DyTrackError, StorageError, first_line
from dytrack_platform.experiment.runs import store
from dytrack_platform.storage.job import require_store

# Its messages about tables and monitors say nothing that a user of the command can act on.
logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

EXPERIMENT = "dytrack"
STORE_ERRORS = (MlflowException, SQLAlchemyError, CommandError, OSError)
"""What MLflow raises where its store does not do what it should."""
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "ENDPOINT_NOT_FOUND")
"""MLflow's codes for something that is not there: also for an id that cannot be one."""
_LONGEST_PARAMETER = 6000  # MLflow's limit on a parameter's value
_PERMANENT = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST")
_REFUSED = ("UNAUTHENTICATED", "PERMISSION_DENIED")
"""MLflow's codes of an answer 401 or 403."""
_LOG = logging.getLogger(__name__)
_CHILDREN: dict[tuple[str, str, str], str] = {}
"""Runs below others that this process has made or found, by store, parent and name."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is open."""

    run_id: str

    def parameters(self, values: Mapping[str, object]) -> None:
        """Log parameters that are not there yet; MLflow refuses to change one."""
        client = mlflow.MlflowClient()
        known = client.get_run(self.run_id).data.params
        new = [
            Param(key, str(value)[:_LONGEST_PARAMETER])
            for key, value in values.items()
            if key not in known
        ]
        for start in range(0, len(new), 100):
            client.log_batch(self.run_id, params=new[start : start + 100])

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log metrics of one step in one call."""
        now = int(time.time() * 1000)
        batch = [Metric(key, float(value), now, step) for key, value in values.items()]
        mlflow.MlflowClient().log_batch(self.run_id, metrics=batch)

    def file(self, path: Path, folder: str | None = None) -> None:
        """Keep a file with the run."""
        mlflow.MlflowClient().log_artifact(self.run_id, str(path), folder)

    def text(self, content: str, name: str) -> None:
        """Keep a text with the run."""
        mlflow.MlflowClient().log_text(self.run_id, content, name)

    def tag(self, key: str, value: str) -> None:
        """Set a tag."""
        mlflow.MlflowClient().set_tag(self.run_id, key, value)


def uri() -> str:
    """Return the tracking store."""
    return store.uri()


def shown() -> str:
    """Return the tracking store without the password that may stand in its address."""
    return store.shown(uri())


def absolute_uri() -> str:
    """As :func:`uri`, for a process in another folder."""
    store = uri()
    if not store.startswith("sqlite:///"):
        return store
    return f"sqlite:///{Path(store.removeprefix('sqlite:///')).absolute()}"


def connect() -> str:
    """Choose the store and make its tables; call it before workers start.

    Several processes that meet an empty SQLite file would race in its migration, so one makes it
    while the others wait.

    Returns:
        The id of the experiment that runs go to.

    Raises:
        AccessError: The store does not answer, or refuses who asks.
        StorageError: It cannot be written, or the experiment is deleted.
    """
    require_store(uri(), given="MLFLOW_TRACKING_URI" in os.environ)
    store.check(uri())
    mlflow.set_tracking_uri(uri())
    try:
        with store.making(uri()):
            found = mlflow.get_experiment_by_name(EXPERIMENT) or _make_experiment()
    except STORE_ERRORS as error:
        raise failure(error) from error
    if found.lifecycle_stage == "deleted":
        raise StorageError(
            f"the experiment {EXPERIMENT} in the MLflow store {shown()} is deleted; "
            f"bring it back with: mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    return str(found.experiment_id)


def _make_experiment() -> mlflow.entities.Experiment:
    """Make our experiment, or find the one that another process makes at this moment."""
    try:
        made = mlflow.create_experiment(EXPERIMENT, artifact_location=_artifact_folder())
    except MlflowException as error:
        if error.error_code != store.ALREADY_THERE:
            raise
        # No lock is shared by all who meet the same fresh server.
        found = mlflow.get_experiment_by_name(EXPERIMENT)
        if found is None:
            raise
        return found
    return mlflow.get_experiment(made)


def look() -> None:
    """Choose the store to look something up in it; nothing is made where nothing is.

    Raises:
        AccessError: The store does not answer.
        StorageError: There is none.
    """
    store.check(uri(), reading=True)
    mlflow.set_tracking_uri(uri())


@contextmanager
def run(
    name: str, *, run_id: str | None = None, parent: str | None = None, kind: str = "search"
) -> Iterator[Run]:
    """Open a run, or go on with ``run_id``, and end it as FINISHED, FAILED or KILLED.

    A failed run carries its reason as the tag ``failure``.
    """
    experiment = connect()
    try:
        mlflow.start_run(
            run_id=run_id,
            experiment_id=None if run_id else experiment,
            run_name=None if run_id else name,
            parent_run_id=None if run_id else parent,
            nested=parent is not None,
            tags={"kind": kind},
            log_system_metrics=False,
        )
    except STORE_ERRORS as error:
        raise failure(error) from error
    active = mlflow.active_run()
    assert active is not None  # just started
    handle = Run(active.info.run_id)
    status = "FAILED"
    try:
        yield handle
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    except Exception as error:
        handle.tag("failure", f"{type(error).__name__}: {error}"[:5000])
        raise
    finally:
        mlflow.end_run(status)


def begin(name: str, run_id: str | None, kind: str = "train") -> str:
    """Make a run, or open an earlier one again; returns its id.

    Raises:
        AccessError: The store does not answer, or refuses who asks.
        StorageError: It fails.
    """
    experiment = connect()
    client = mlflow.MlflowClient()
    try:
        if run_id is None:
            made = client.create_run(experiment, run_name=name, tags={"kind": kind})
            return str(made.info.run_id)
        client.set_terminated(run_id, "RUNNING")
        if "failure" in client.get_run(run_id).data.tags:
            client.delete_tag(run_id, "failure")
    except STORE_ERRORS as error:
        raise failure(error) from error
    return run_id


def deliver(run_id: str, folder: Path, entries: list[dict[str, Any]]) -> None:
    """Log entries of a journal, in order.

    Args:
        run_id: The run.
        folder: Where the files that entries name lie.
        entries: What :class:`~dytrack_platform.experiment.runs.journal.Journal` noted.

    Raises:
        StorageError: The store does not answer: try again later.
    """
    mlflow.set_tracking_uri(uri())
    client = mlflow.MlflowClient()
    for child, some in groupby(entries, key=lambda entry: entry.get("child")):
        if child is None:
            _deliver(client, run_id, folder, list(some))
        else:
            own = _found(partial(_child, client, run_id, child))
            _deliver(client, own, folder, list(some))


def _deliver(
    client: mlflow.MlflowClient, run_id: str, folder: Path, entries: list[dict[str, Any]]
) -> None:
    # Metrics of many entries in few calls: a call costs a server the same for one point as for a
    # thousand.
    metrics = [
        Metric(key, float(value), entry["time"], entry["step"])
        for entry in entries
        for key, value in entry.get("metrics", {}).items()
    ]
    for start in range(0, len(metrics), 1000):
        chunk = metrics[start : start + 1000]
        _attempt(partial(client.log_batch, run_id, metrics=chunk))
    for entry in entries:
        _attempt(partial(_deliver_one, client, run_id, folder, entry))


def _found(call: Callable[[], str]) -> str:
    try:
        return call()
    except (MlflowException, OSError) as error:
        raise _unreachable(error) from error


def _child(client: mlflow.MlflowClient, parent: str, name: str) -> str:
    """Return the run of that name below a parent, made where it is not there yet."""
    key = (uri(), parent, name)
    if key not in _CHILDREN:
        above = client.get_run(parent).info.experiment_id
        found = children(client, parent, above, f"AND tags.`mlflow.runName` = '{name}'")
        if found:
            _CHILDREN[key] = str(found[0].info.run_id)
        else:
            tags = {"kind": "trial", "mlflow.parentRunId": parent}
            made = client.create_run(above, run_name=name, tags=tags)
            _CHILDREN[key] = str(made.info.run_id)
    return _CHILDREN[key]


def children(
    client: mlflow.MlflowClient, parent: str, experiment: str, also: str = ""
) -> list[mlflow.entities.Run]:
    """Return the runs below a parent, as far as another condition holds of them."""
    condition = f"tags.`mlflow.parentRunId` = '{parent}' {also}"
    return list(client.search_runs([experiment], condition, max_results=5000))


def _attempt(call: Callable[[], object]) -> None:
    """Make a call; what MLflow will never take is passed over with a warning.

    Raises:
        StorageError: The store does not answer.
    """
    try:
        call()
    except MlflowException as error:
        # What the server refuses for good would be refused at every try and block what comes after
        # it.
        if error.error_code not in _PERMANENT:
            raise _unreachable(error) from error
        _LOG.warning("MLflow refuses a part of the journal: %s", _first_line(error))
    except STORE_ERRORS as error:
        raise _unreachable(error) from error


def _deliver_one(
    client: mlflow.MlflowClient, run_id: str, folder: Path, entry: dict[str, Any]
) -> None:
    if "parameters" in entry:
        Run(run_id).parameters(entry["parameters"])
    elif "tags" in entry:
        tags = [RunTag(key, value) for key, value in entry["tags"].items()]
        client.log_batch(run_id, tags=tags)
    elif "file" in entry:
        path = folder / entry["file"]
        inside = entry.get("as") or str(Path(entry["file"]).parent)
        if path.is_file():
            client.log_artifact(run_id, str(path), None if inside == "." else inside)
    elif entry.get("status") == "RUNNING":
        client.update_run(run_id, "RUNNING")
    elif "status" in entry:
        client.set_terminated(run_id, entry["status"], end_time=entry["time"])
        if "child" not in entry and entry["status"] != "FINISHED":
            _end_children(client, run_id, entry["time"])


def _end_children(client: mlflow.MlflowClient, parent: str, at: int) -> None:
    """What runs below a run that was ended does not run any more."""
    above = client.get_run(parent).info.experiment_id
    for run in children(client, parent, above, "AND attributes.status = 'RUNNING'"):
        client.set_terminated(run.info.run_id, "KILLED", end_time=at)


def failure(error: Exception, asked: str = "") -> DyTrackError:
    """Say in a sentence what MLflow raised: it refuses who asks, or it fails.

    Args:
        error: One of ``STORE_ERRORS``.
        asked: What was asked of the store; that it does not answer if empty.
    """
    if getattr(error, "error_code", "") in _REFUSED:
        return AccessError(
            f"the MLflow store {shown()} refuses the name and the password it was given "
            f"({_first_line(error)}): set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; "
            "for a job, on the cluster, and name both with --secret"
        )
    if asked:
        return StorageError(f"{asked}: {_first_line(error)}")
    return _unreachable(error)


def _unreachable(error: Exception) -> StorageError:
    return StorageError(
        f"the MLflow store {shown()} does not answer: {_first_line(error)}; set MLFLOW_TRACKING_URI"
    )


def _first_line(error: Exception) -> str:
    return store.hide(first_line(error), uri())[:300]  # MLflow names the whole address


def exists(run_id: str) -> bool:
    """Say whether the store knows a run (another store may be set than when it was made).

    Raises:
        AccessError: The store does not answer or refuses who asks; that says nothing of the run.
        StorageError: It fails, which says nothing either.
    """
    connect()
    try:
        mlflow.MlflowClient().get_run(run_id)
    except STORE_ERRORS as error:
        if is_absence(error):
            return False
        raise failure(error) from error
    return True


def is_absence(error: Exception) -> bool:
    """Tell MLflow's "there is no such thing" from a store that fails."""
    return isinstance(error, MlflowException) and error.error_code in _ABSENT


def _artifact_folder() -> str | None:
    """Keep the artefacts of a local SQLite store beside it; a server has its own place."""
    store = uri()
    if not store.startswith("sqlite:///"):
        return None
    beside = Path(store.removeprefix("sqlite:///")).absolute().parent / "mlartifacts"
    return beside.as_uri()

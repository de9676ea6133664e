"""Runs in MLflow: started, logged in batches, and always ended with what became of them."""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "2")

import mlflow
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from dytrack_platform.errors import StorageError

# Its messages about tables and monitors say nothing that a user of the command can act on.
logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

EXPERIMENT = "dytrack"
DEFAULT_URI = "sqlite:///mlflow.db"
_LONGEST_PARAMETER = 6000  # MLflow's limit on a parameter's value


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
    """Give the tracking store: ``MLFLOW_TRACKING_URI``, or an SQLite file in this folder."""
    return os.environ.get("MLFLOW_TRACKING_URI", DEFAULT_URI)


def connect() -> str:
    """Choose the store and make its tables; call it before workers start.

    Several processes that meet an empty SQLite file race in its migration and most of them die;
    once it is made they get along.

    Returns:
        The id of the experiment that runs go to.

    Raises:
        StorageError: The store does not answer or cannot be written.
    """
    mlflow.set_tracking_uri(uri())
    try:
        found = mlflow.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        return str(mlflow.create_experiment(EXPERIMENT, artifact_location=_artifact_folder()))
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0][:300]
        raise StorageError(
            f"the MLflow store {uri()} does not answer: {reason}; set MLFLOW_TRACKING_URI"
        ) from error


@contextmanager
def run(
    name: str, *, run_id: str | None = None, parent: str | None = None, kind: str = "train"
) -> Iterator[Run]:
    """Open a run, or go on with ``run_id``, and end it as FINISHED, FAILED or KILLED.

    A failed run carries its reason as the tag ``failure``.
    """
    experiment = connect()
    mlflow.start_run(
        run_id=run_id,
        experiment_id=None if run_id else experiment,
        run_name=None if run_id else name,
        parent_run_id=None if run_id else parent,
        nested=parent is not None,
        tags={"kind": kind},
        log_system_metrics=kind == "train" and parent is None,
    )
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


def exists(run_id: str) -> bool:
    """Say whether the store knows a run (another store may be set than when it was made)."""
    connect()
    try:
        mlflow.MlflowClient().get_run(run_id)
    except MlflowException:
        return False
    return True


def _artifact_folder() -> str | None:
    """Keep the artefacts of a local SQLite store beside it; a server has its own place."""
    store = uri()
    if not store.startswith("sqlite:///"):
        return None
    beside = Path(store.removeprefix("sqlite:///")).absolute().parent / "mlartifacts"
    return beside.as_uri()


def has_child(parent: str, name: str) -> bool:
    """Say whether a run has a finished child of this name."""
    found = mlflow.search_runs(
        experiment_names=[EXPERIMENT],
        filter_string=(
            f"tags.`mlflow.parentRunId` = '{parent}' AND tags.`mlflow.runName` = '{name}' "
            "AND attributes.status = 'FINISHED'"
        ),
        output_format="list",
    )
    return len(found) > 0

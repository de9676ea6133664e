"""Run MLflow's server as a child that ends with the command, be it killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

_DATABASE = "MLFLOW_BACKEND_STORE_URI"
"""How MLflow takes the database: an argument would show its password to every user here."""
_UPGRADE = (
    f"import os; from mlflow.db import commands; commands(['upgrade', os.environ['{_DATABASE}']])"
)
_GRACE_S = 10.0
_GUARD = (
    "/bin/sh",
    "-c",
    f'read -r _ || {{ kill -s TERM -- "-$1"; sleep {_GRACE_S:g}; kill -s KILL -- "-$1"; }}',
    "sh",
)
"""Ends the process group behind these words once its input closes without a line."""


def upgrade(database: str) -> None:
    """Bring the tables of a database to the newest; a new one is left to the server.

    Raises:
        StorageError: They stay as they were, or are half way.
    """
    from dytrack_platform.errors import StorageError
    from dytrack_platform.experiment.runs import store

    if not store.has_tables(database):
        return
    done = subprocess.run(
        [sys.executable, "-c", _UPGRADE],
        env={**os.environ, _DATABASE: database},
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise StorageError(
            f"the tables of {store.shown(database)} cannot be brought to those of this MLflow: "
            f"{store.hide(reason, database)[:300]}; restore a copy of the database, or start "
            "another with --backend"
        )


def serve(database: str, words: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run the server until it ends, or until this process is told to end.

    Args:
        database: Where it keeps runs.
        words: More words for ``mlflow server``.
        environment: More of its variables.

    Returns:
        Its exit code.
    """
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *words],
        # MLflow's job runner would start ten more processes for nothing.
        env={
            **os.environ,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            _DATABASE: database,
            **(environment or {}),
        },
        # A group of its own: MLflow starts others and does not end them, and they hold the port.
        start_new_session=True,
    )
    guard: subprocess.Popen[bytes] | None = None
    try:
        # Where this process is killed, only another one can end the server; it has a group of its
        # own too, so that what is killed with this command's does not include it.
        guard = subprocess.Popen(
            [*_GUARD, str(server.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return server.wait()
    finally:
        _end(server)
        if guard is not None:
            guard.communicate(b"well\n")


def _end(server: "subprocess.Popen[bytes]") -> None:
    """End the server with all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            return
        try:
            server.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            continue

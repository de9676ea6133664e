"""The MLflow store before MLflow meets it: is it there, does it answer, is it ours to write.

MLflow waits for minutes on a server that is gone and shows a traceback for a file that is no
database. What is found out here costs milliseconds, at most ten seconds, and is said in a sentence.
"""

import os
import re
import socket
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from dytrack_platform.errors import AccessError, StorageError
from dytrack_platform.experiment.runs import certificates

DEFAULT_URI = "sqlite:///mlflow.db"
ALREADY_THERE = "RESOURCE_ALREADY_EXISTS"
"""MLflow's code where somebody else made a thing first."""
_SQLITE = "sqlite:///"
_ANSWER_S = 5.0
"""Seconds to wait for a lock on a file or an answer of a server."""
_MAKING_S = 120.0
"""Seconds that another process may take to make the tables."""
_PASSWORD = re.compile(r"://[^:/@]*:(.*)@|[?&]password=([^&]*)")
_LONGEST_ANSWER = 65536


def uri() -> str:
    """Return the tracking store: ``MLFLOW_TRACKING_URI``, or an SQLite file in this folder."""
    return os.environ.get("MLFLOW_TRACKING_URI", DEFAULT_URI)


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an SQLite store; None for any other store."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def check(uri: str, *, reading: bool = False) -> None:
    """Refuse a store that will not do.

    Args:
        uri: The store, as in ``MLFLOW_TRACKING_URI``.
        reading: Only look something up: a store that is not there is then not made.

    Raises:
        AccessError: It does not answer, or its address is none.
        StorageError: It is missing, locked, no database, or not writable.
    """
    file = sqlite_file(uri)
    if file is not None:
        _check_file(uri, file, reading)
    elif "://" in uri:
        _check_port(uri)
        if uri.startswith(("http://", "https://")):
            ask(uri, "/health")  # what it thinks of us MLflow will say


def ask(
    uri: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> tuple[int, str]:
    """Ask an MLflow server for a page.

    Args:
        uri: Of the server; a name and a password in it are not sent.
        path: From the first slash on.
        headers: To send along.
        body: To POST; a GET without.

    Returns:
        The status, and the beginning of the answer.

    Raises:
        AccessError: Nobody answers in HTTP, or its certificate is not trusted.
    """
    try:
        parts = urlsplit(uri)
        place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}{path}"
        request = urllib.request.Request(place, body, dict(headers or {}))
        tls = certificates.context() if parts.scheme == "https" else None
        with urllib.request.urlopen(request, timeout=_ANSWER_S, context=tls) as answer:
            return int(answer.status), answer.read(_LONGEST_ANSWER).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(_LONGEST_ANSWER).decode("utf-8", "replace")
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        untrusted = certificates.refusal(shown(uri), reason)
        raise untrusted or _silent(uri, reason) from error


def shown(uri: str) -> str:
    """Return a store's address without the password that may stand in it."""
    return hide(uri, uri)


def hide(text: str, uri: str) -> str:
    """Return a text without the password of a store's address that it may tell."""
    for found in _PASSWORD.finditer(uri):
        for secret in filter(None, found.groups()):
            text = text.replace(f":{secret}@", ":***@").replace(f"={secret}", "=***")
    return text


def has_tables(uri: str) -> bool:
    """Say whether a database has MLflow's tables; a fresh one must not be upgraded."""
    from sqlalchemy import create_engine, inspect
    from sqlalchemy.exc import SQLAlchemyError

    try:
        engine = create_engine(uri)
        with engine.connect() as connection:
            return bool(inspect(connection).has_table("experiments"))
    except (SQLAlchemyError, ModuleNotFoundError):
        return False


@contextmanager
def making(uri: str) -> Iterator[None]:
    """Hold the right to make a store's tables: MLflow's migration breaks where two run at once.

    Raises:
        StorageError: Another process does not come to an end with it.
    """
    file = sqlite_file(uri)
    if file is None:  # a server makes its own
        yield
        return
    lock = file.with_name(f".{file.name}.lock")
    try:
        with FileLock(lock, timeout=_MAKING_S):
            yield
    except Timeout:
        raise StorageError(
            f"the MLflow store {uri}: another process has held {lock} for {_MAKING_S:g} s; end it, "
            "or remove that file"
        ) from None
    except OSError as error:
        raise StorageError(f"the MLflow store {uri}: {lock}: {error.strerror}") from error


_CURE = "; set MLFLOW_TRACKING_URI to another store"


def _check_file(uri: str, file: Path, reading: bool) -> None:
    if file.is_dir():
        raise _refusal(uri, f"is a folder{_CURE}")
    try:
        there = file.is_file() and file.stat().st_size > 0
    except OSError as error:
        raise _refusal(uri, f"cannot be read: {error.strerror}{_CURE}") from error
    if there:
        _check_database(uri, file, reading)
    elif reading:
        raise _refusal(uri, "is not there: nothing was recorded or published in it yet")
    else:
        _check_place(uri, file.parent)


def _check_place(uri: str, folder: Path) -> None:
    """Refuse a folder in which no database can be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refusal(uri, f"cannot be made: {error.strerror}{_CURE}") from error
    if not os.access(folder, os.W_OK):
        raise _refusal(uri, f"cannot be made: {folder.absolute()} is not writable{_CURE}")


def _check_database(uri: str, file: Path, reading: bool) -> None:
    if not reading and not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)):
        raise _refusal(uri, f"is not writable{_CURE}")
    try:
        with closing(sqlite3.connect(file, timeout=_ANSWER_S)) as connection:
            if reading:
                connection.execute("SELECT 1 FROM sqlite_master LIMIT 1")
            else:
                connection.execute("BEGIN IMMEDIATE")
                connection.rollback()
    except sqlite3.Error as error:
        why = str(error)
        if "locked" in why:
            raise _refusal(
                uri,
                f"is locked by another process for more than {_ANSWER_S:g} s; end it, or let "
                "several processes share a server (mlflow server)",
            ) from error
        if "not a database" in why:
            raise _refusal(uri, f"is no SQLite database{_CURE}") from error
        raise _refusal(uri, f"cannot be used: {why}{_CURE}") from error


def _refusal(uri: str, what: str) -> StorageError:
    return StorageError(f"the MLflow store {uri} {what}")


def _check_port(uri: str) -> None:
    usual = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
    try:
        parts = urlsplit(uri)
        port = parts.port or usual.get(parts.scheme.partition("+")[0])
        if not parts.hostname or port is None:
            return
        with socket.create_connection((parts.hostname, port), timeout=_ANSWER_S):
            pass
    except (OSError, ValueError) as error:
        raise _silent(uri, error) from error


def _silent(uri: str, error: object) -> AccessError:
    return AccessError(
        f"the MLflow store {shown(uri)} does not answer ({hide(str(error), uri) or 'no word'}); "
        "start it, or set MLFLOW_TRACKING_URI"
    )

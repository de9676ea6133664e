"""Judge what a cluster is used with: its dashboard, and MLflow."""

import base64
import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.parse import unquote, urlsplit

from dytrack_platform.errors import AccessError, DyTrackError, first_line
from dytrack_platform.experiment.cluster.token import token
from dytrack_platform.experiment.doctor import survey
from dytrack_platform.experiment.doctor.check import Check
from dytrack_platform.experiment.runs import store
from dytrack_platform.storage import addresses

_LEAST_MLFLOW = (3, 15)
_WAIT_S = 5.0
_REFUSED = (401, 403)
_EXPERIMENT = "dytrack"
_API = "/api/2.0/mlflow/experiments/"


def judge_token(dashboard: str) -> Check:
    """Ask a dashboard with the token that this machine has, if any, and without it."""
    known = token()
    has = "a token" if known else "no token"
    try:
        code = _knock(dashboard, known)
        # What takes everybody is worth a warning where others reach it.
        unknown = _knock(dashboard, "") if known and code < 400 else code
    except (OSError, ValueError, HTTPException) as error:
        return _wrong(
            "token",
            f"{dashboard} does not answer ({getattr(error, 'reason', error)})",
            "start the dashboard, or name another --dashboard",
        )
    if code in _REFUSED:
        return _wrong(
            "token",
            f"{dashboard} refuses this machine, which has {has}",
            "put the cluster's token into ~/.ray/auth_token, or set RAY_AUTH_TOKEN",
        )
    if code >= 400:
        return _wrong(
            "token", f"{dashboard} answers {code}, as no dashboard does", "name another --dashboard"
        )
    if unknown < 400 and not addresses.is_loopback(urlsplit(dashboard).hostname or ""):
        return judge_open(dashboard)
    return _fine("token", f"{dashboard} takes this machine, with {has}")


def judge_open(place: str) -> Check:
    """Say that a cluster takes whoever reaches it."""
    return _wrong(
        "token",
        f"{place} asks for no token: whoever reaches it runs programs there",
        "start the cluster with RAY_AUTH_MODE=token (cluster/README.md), or on loopback only",
    )


def _knock(dashboard: str, known: str) -> int:
    request = urllib.request.Request(f"{dashboard.rstrip('/')}/api/version")
    if known:
        request.add_header("Authorization", f"Bearer {known}")
    try:
        with urllib.request.urlopen(request, timeout=_WAIT_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def judge_mlflow(uri: str, *, remote: bool) -> list[Check]:
    """Judge the store: reachable, takes us and what we write, without known holes, not open."""
    if uri.startswith("sqlite:") and remote:
        return [
            _wrong(
                "mlflow",
                f"{uri} is a file of one machine, and Ray runs on others",
                "run a server and set MLFLOW_TRACKING_URI to its address (dytrack mlflow up)",
            )
        ]
    try:
        store.check(uri)
    except DyTrackError as error:
        cure = "start the store, or set MLFLOW_TRACKING_URI to another"
        return [_wrong("mlflow", str(error), cure)]
    own = survey.versions()["mlflow"]
    checks = [
        _fine("mlflow", f"{store.shown(uri)} answers"),
        _version("mlflow-version", f"this machine has {own}", own),
    ]
    if uri.startswith(("http://", "https://")):
        try:
            checks += _server(uri)
        except AccessError as error:
            checks.append(_wrong("mlflow-server", str(error), "look at the server's log"))
    elif not uri.startswith("sqlite:"):
        checks.append(_database(uri))
    return checks


def _server(uri: str) -> list[Check]:
    """Judge a server: who it takes, what it lets us write, and its version.

    Raises:
        AccessError: It stops answering.
    """
    who = _credentials(uri)
    code, version = store.ask(uri, "/version", who)
    if code in _REFUSED:
        return [_login(uri, code, who), _closed(uri)]
    known = version.strip() if code < 400 else "unknown"
    checks = [_version("mlflow-server", f"the server has {known}", known)]
    return [*checks, *_writable(uri, who), _closed(uri)]


def _writable(uri: str, who: Mapping[str, str]) -> list[Check]:
    """Change a tag of our experiment, which is made where it is not there, as commands do."""
    by_name = f"{_API}get-by-name?experiment_name={_EXPERIMENT}"
    code, text = store.ask(uri, by_name, who)
    if code == 404:
        code, text = _post(uri, "create", who, {"name": _EXPERIMENT})
        # Made by somebody else at this moment.
        if _json(text).get("error_code") == store.ALREADY_THERE:
            code, text = store.ask(uri, by_name, who)
    answer = _json(text)
    found = answer.get("experiment_id") or answer.get("experiment", {}).get("experiment_id")
    if code in _REFUSED:
        return [_login(uri, code, who)]
    if code < 400:
        tag = {"experiment_id": found, "key": "dytrack.doctor", "value": "was here"}
        code, text = _post(uri, "set-experiment-tag", who, tag)
    login = _fine("mlflow-login", "the server takes this name" if who else "no name is asked for")
    if code < 400:
        return [login, _fine("mlflow-writable", f"the experiment {_EXPERIMENT} is written to")]
    reason = str(_json(text).get("message", text)).strip()[:200]
    cure = "look at the server's log and its database"
    if code in _REFUSED:
        cure = f"have its administrator give this name EDIT on the experiment {_EXPERIMENT}"
    told = f"{store.shown(uri)} does not let this name write ({code}: {reason})"
    return [login, _wrong("mlflow-writable", told, cure)]


def _login(uri: str, code: int, who: Mapping[str, str]) -> Check:
    given = "the name and the password, or the token, it was given" if who else "who gives no name"
    return _wrong(
        "mlflow-login",
        f"{store.shown(uri)} refuses {given} ({code})",
        "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to what the server knows",
    )


def _closed(uri: str) -> Check:
    """Ask without a name: a server that answers is open to whoever reaches it."""
    code, text = store.ask(uri, f"{_API}get?experiment_id=0")
    if code in _REFUSED:
        return _fine("mlflow-open", "the server asks who is there")
    if code >= 500 or not _json(text):
        return _wrong(
            "mlflow-open",
            f"{store.shown(uri)} answers {code} to who gives no name, which says nothing",
            "look at the server's log, or at what stands before it",
        )
    if addresses.is_loopback(urlsplit(uri).hostname or ""):
        return _fine("mlflow-open", "open, to this machine only")
    return _wrong(
        "mlflow-open",
        f"{store.shown(uri)} answers everybody who reaches it",
        "start it with --app-name basic-auth behind TLS, or let it listen on loopback only",
    )


def _database(uri: str) -> Check:
    """Change nothing in a database, as who may change it."""
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import SQLAlchemyError

    try:
        engine = create_engine(uri)
        with engine.connect() as connection:
            if store.has_tables(uri):
                connection.execute(text("UPDATE experiments SET name = name WHERE 1 = 0"))
            connection.rollback()
    except (SQLAlchemyError, ModuleNotFoundError) as error:
        reason = store.hide(first_line(error), uri)[:300]
        cure = "give this user the tables of MLflow, or set MLFLOW_TRACKING_URI to another"
        return _wrong("mlflow-writable", f"{store.shown(uri)}: {reason}", cure)
    return _fine("mlflow-writable", "the database takes this user")


def _version(name: str, detail: str, version: str) -> Check:
    parts = version.split(".")
    known = len(parts) > 1 and all(part.isdigit() for part in parts[:2])
    if known and (int(parts[0]), int(parts[1])) >= _LEAST_MLFLOW:
        return _fine(name, detail)
    least = ".".join(map(str, _LEAST_MLFLOW))
    return _wrong(
        name,
        f"{detail}; {least} closes known holes",
        f"install mlflow>={least}, then mlflow db upgrade",
    )


def _credentials(uri: str) -> dict[str, str]:
    """Return what MLflow itself would send to say who asks; nothing where nobody is named."""
    from mlflow.utils.credentials import read_mlflow_creds

    parts = urlsplit(uri)
    name, password = unquote(parts.username or ""), unquote(parts.password or "")
    if not name:
        known = read_mlflow_creds()
        name, password = known.username or "", known.password or ""
    if name:
        encoded = base64.b64encode(f"{name}:{password}".encode()).decode()
        return {"Authorization": f"Basic {encoded}"}
    bearer = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {bearer}"} if bearer else {}


def _post(uri: str, what: str, who: Mapping[str, str], body: Mapping[str, Any]) -> tuple[int, str]:
    headers = {**who, "Content-Type": "application/json"}
    return store.ask(uri, _API + what, headers, json.dumps(body).encode())


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _fine(name: str, detail: str) -> Check:
    return Check(check=name, ok=True, detail=detail)


def _wrong(name: str, detail: str, cure: str) -> Check:
    return Check(check=name, ok=False, detail=detail, cure=cure)

"""Run the MLflow server that jobs and colleagues record to: ``dytrack mlflow up``.

    dytrack mlflow up
    dytrack mlflow up --backend postgresql://mlflow@db/mlflow --artifacts s3://bucket/mlflow \
        --host 0.0.0.0 --auth

Artefacts go through the server, so that who records needs no access to where they lie. On loopback
it is open, as SQLite in a folder is; any other address asks for a name and a password.
"""

import secrets
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from dytrack_pipelines.commands.cluster import mlflow_server
from dytrack_pipelines.commands.serve import require_free
from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import Port
from dytrack_platform.storage import addresses
from dytrack_platform.storage.atomic import replacing

mlflow_app = typer.Typer(help="Run an MLflow server.", no_args_is_help=True)


@mlflow_app.callback()
def about() -> None:
    """Run an MLflow server."""


@mlflow_app.command()
def up(
    folder: Annotated[
        Path, typer.Option(help="Folder of database and artefacts where the others are left out.")
    ] = Path("mlflow-server"),
    backend: Annotated[
        str | None,
        typer.Option(
            help="Database: postgresql://USER@HOST/NAME; SQLite by default. A password is safer in "
            "the environment, for others see a command's words.",
            envvar="MLFLOW_BACKEND_STORE_URI",
        ),
    ] = None,
    artifacts: Annotated[
        str | None, typer.Option(help="Where artefacts lie: a folder, or s3://BUCKET/PATH.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Port = 5000,
    auth: Annotated[
        bool, typer.Option("--auth", help="Ask for a name and a password; needed off loopback.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes of the server.")] = 2,
) -> None:
    """Start the server, with its tables at their newest, and stay until Ctrl-C."""
    from dytrack_platform.errors import ConfigurationError, RuntimeMissingError
    from dytrack_platform.experiment.runs import store

    # Refuse what would stand open, and what does not answer, before anything starts.
    if not auth and not addresses.is_loopback(host):
        raise ConfigurationError(
            f"--host {host}: a server that others reach asks who they are; give --auth, and put "
            "TLS before it"
        )
    require_free(host, port)
    folder = folder.absolute()
    database = backend or f"sqlite:///{folder / 'mlflow.db'}"
    place = artifacts or str(folder / "artifacts")
    folder.mkdir(parents=True, exist_ok=True)
    store.check(database)
    words = ["--artifacts-destination", place, "--serve-artifacts"]
    words += ["--host", host, "--port", str(port), "--workers", str(workers)]
    environment: dict[str, str] = {}
    if auth:
        if find_spec("flask_wtf") is None:
            raise RuntimeMissingError("flask-wtf is not installed: pip install 'dytrack[server]'")
        words += ["--app-name", "basic-auth"]
        environment = _authentication(folder)
    mlflow_server.upgrade(database)
    screen.say(f"MLflow on http://{host}:{port}; Ctrl-C ends it")
    screen.say(f"record to it with: export MLFLOW_TRACKING_URI=http://{host}:{port}")
    raise typer.Exit(mlflow_server.serve(database, words, environment))


def _authentication(folder: Path) -> dict[str, str]:
    """Return the settings of the server's door; its key and first password are made once.

    MLflow has no password of its own any more; ours is random and lies where only its owner reads.
    """
    key, password = folder / "session.key", folder / "admin.password"
    for path in (key, password):
        if not _said(path):
            _write_own(path, secrets.token_urlsafe(24))
    users = folder / "users.ini"
    if not _said(users):
        _write_own(
            users,
            "[mlflow]\n"
            "default_permission = READ\n"
            f"database_uri = sqlite:///{folder / 'users.db'}\n"
            "admin_username = admin\n"
            f"admin_password = {password.read_text(encoding='utf-8')}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n",
        )
        screen.say(f"user admin, password in {password}")
    return {
        "MLFLOW_FLASK_SERVER_SECRET_KEY": key.read_text(encoding="utf-8"),
        "MLFLOW_AUTH_CONFIG_PATH": str(users),
    }


def _said(path: Path) -> str:
    """Return what a file says; nothing where it is not there."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _write_own(path: Path, text: str) -> None:
    """Write a file, whole, that only its owner reads."""
    with replacing(path, mode=0o600) as beside:
        beside.write_text(text, encoding="utf-8")

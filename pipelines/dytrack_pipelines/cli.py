"""The ``dytrack`` command: one sub-command for each story."""

import atexit
import errno
import functools
import logging
import os
import signal
import sys
from types import FrameType
from typing import Annotated

import typer
from rich.text import Text

from dytrack_model.errors import DyTrackError
from dytrack_pipelines.commands.calibrate import calibrate
from dytrack_pipelines.commands.cluster.doctor import doctor
from dytrack_pipelines.commands.cluster.jobs import jobs_app
from dytrack_pipelines.commands.cluster.mlflow import mlflow_app
from dytrack_pipelines.commands.cluster.submit import submit
from dytrack_pipelines.commands.cluster.ui import ui
from dytrack_pipelines.commands.cluster.upload import upload
from dytrack_pipelines.commands.compare import compare
from dytrack_pipelines.commands.config import config_app
from dytrack_pipelines.commands.data import data_app
from dytrack_pipelines.commands.demo import demo
from dytrack_pipelines.commands.describe import describe
from dytrack_pipelines.commands.evaluate import evaluate
from dytrack_pipelines.commands.export import export
from dytrack_pipelines.commands.import_ostrack import import_ostrack
from dytrack_pipelines.commands.models import models, rollback
from dytrack_pipelines.commands.pareto import pareto
from dytrack_pipelines.commands.prepare import prepare
from dytrack_pipelines.commands.publish import publish
from dytrack_pipelines.commands.score import score
from dytrack_pipelines.commands.search import search
from dytrack_pipelines.commands.serve import serve
from dytrack_pipelines.commands.shrink import shrink
from dytrack_pipelines.commands.track import track
from dytrack_pipelines.commands.train import train
from dytrack_pipelines.commands.trax import trax
from dytrack_pipelines.commands.versus import versus
from dytrack_pipelines.garbage import rest_while_importing
from dytrack_pipelines.terminal import screen
from dytrack_platform.storage.job import require_secrets

_INTERRUPTED, _TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
_PLACES = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
)
"""What is wrong with the place where something was to be written, and not with the program."""
_GOES_ON = ("demo", "prepare", "train", "search", "evaluate")
"""Commands that continue where they stopped."""
app = typer.Typer(
    name="dytrack",
    help="Train, search, measure and deploy trackers that stop early.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _command in (
    demo,
    prepare,
    train,
    search,
    evaluate,
    score,
    compare,
    versus,
    pareto,
    publish,
    models,
    rollback,
    serve,
    track,
    calibrate,
    describe,
    export,
    import_ostrack,
    shrink,
    trax,
    ui,
    upload,
    doctor,
):
    app.command()(_command)
app.add_typer(data_app, name="data")
app.add_typer(config_app, name="config")
app.add_typer(jobs_app, name="jobs")
app.add_typer(mlflow_app, name="mlflow")
# Everything after the command's name belongs to the command that runs on the cluster.
app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(
    submit
)


def _tell_version(wanted: bool) -> None:
    """Print the version, which stands in pyproject.toml alone, and leave."""
    if wanted:
        from importlib import metadata

        screen.say(f"dytrack {metadata.version('dytrack')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (goes anywhere).")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Train, search, measure and deploy trackers that stop early."""


_command_line = functools.cache(functools.partial(typer.main.get_command, app))
"""Builds the options of all commands, once in a process: tests run many."""


def main() -> None:
    """Be the process of a command."""
    rest_while_importing()
    signal.signal(signal.SIGTERM, _terminate)
    # Registered before any command imports Ray: what is registered first runs last.
    atexit.register(_skip_finalisation, ended_with := [])
    try:
        command()
    except SystemExit as ended:
        ended_with.append(ended.code or 0)
        raise


def command() -> None:
    """Run a command; errors end with one sentence and a code: 2 for input, 1 for a failure."""
    words = sys.argv[1:]
    # A job's command keeps its own --debug.
    debug = "--debug" in words and words[0] != "submit"
    try:
        require_secrets()
        # Typer turns Ctrl-C into this exit code without a word.
        _command_line()([word for word in words if word != "--debug"] if debug else words)
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:
            screen.errors.print(_interruption(words))
        raise
    except DyTrackError as error:
        _end(str(error), error.exit_code, debug)
    except OSError as error:
        if error.errno not in _PLACES:
            raise
        where = error.filename or "the output folder"
        _end(f"{where}: {os.strerror(error.errno)}; free space or choose another folder", 1, debug)


def _interruption(words: list[str]) -> str:
    """Say what a command that was interrupted leaves behind."""
    name = next((word for word in words if not word.startswith("-")), "")
    if name in _GOES_ON:
        return "interrupted; what was finished is kept, and the same command goes on from there"
    return "interrupted"


def _end(sentence: str, code: int, debug: bool) -> None:
    """Print one sentence and leave; inside an except block, so that --debug can show it."""
    if debug:
        raise
    screen.errors.print(Text.assemble(("error: ", "bold red"), sentence))
    sys.exit(code)


def _skip_finalisation(ended_with: list[int]) -> None:
    """Leave once every exit handler has run, without tearing the libraries down.

    That takes a second or three, for nothing. And a signal may strike while Ray connects: its
    threads then outlive its own shutdown and use what the interpreter has already freed, a
    segmentation fault in place of the exit code.
    """
    if ended_with:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended_with[0])


def _terminate(number: int, frame: FrameType | None) -> None:
    """Leave through the context managers, so that runs end as killed and files are whole."""
    sys.exit(128 + number)


if __name__ == "__main__":
    main()

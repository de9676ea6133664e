"""What holds for the options of every command."""

import inspect
import typing

import pytest
import typer

from dytrack_pipelines import cli
from dytrack_pipelines.commands.cluster.jobs import jobs_app
from dytrack_pipelines.commands.cluster.mlflow import mlflow_app
from dytrack_pipelines.commands.config import config_app
from dytrack_pipelines.commands.data import data_app


def _functions():
    for prefix, app in (
        ("", cli.app),
        ("config ", config_app),
        ("data ", data_app),
        ("jobs ", jobs_app),
        ("mlflow ", mlflow_app),
    ):
        for info in app.registered_commands:
            name = info.name or info.callback.__name__.replace("_", "-")
            yield f"{prefix}{name}", info.callback


def _options():
    """Yield command, parameter's name, its plain type, and what typer was told of it."""
    for name, function in _functions():
        hints = typing.get_type_hints(function, include_extras=True)
        for key in inspect.signature(function).parameters:
            if hints[key] is typer.Context:  # typer's own, and no option
                continue
            kind, *more = typing.get_args(hints[key])
            told = next(one for one in more if isinstance(one, typer.models.ParameterInfo))
            yield pytest.param(name, kind, told, id=f"{name} {key}")


def _is_whole(kind):
    return kind is int or int in typing.get_args(kind)


OPTIONS = list(_options())
WHOLE = [option for option in OPTIONS if _is_whole(option.values[1])]


@pytest.mark.parametrize(("command", "kind", "told"), WHOLE)
def test_every_whole_number_has_bounds(command, kind, told):
    """So that -1, 0 and a billion are refused by a sentence where they mean nothing."""
    assert told.min is not None
    assert told.max is not None
    assert 0 <= told.min < told.max < 10**9


@pytest.mark.parametrize(("command", "kind", "told"), OPTIONS)
def test_every_option_says_what_it_does(command, kind, told):
    assert told.help


def test_every_command_says_what_it_does():
    for name, function in _functions():
        assert function.__doc__, name


def test_what_runs_the_network_is_chosen_alike_in_every_command():
    for name, function in _functions():
        known = set(inspect.signature(function).parameters)
        if "precision" in known and name != "export":  # which writes graphs and runs none
            assert {"runtime", "threads"} <= known, name
            assert "device" in known or name == "versus", name


@pytest.mark.parametrize("value", ["-1", "0", "1000000000", "1e9", "x", ""])
@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("track", "--threads"),
        ("describe", "--threads"),
        ("evaluate", "--workers"),
        ("score", "--workers"),
        ("prepare", "--frames"),
        ("ui", "--port"),
        ("export", "--batch"),
        ("versus", "--threads"),
    ],
)
def test_a_whole_number_out_of_bounds_is_one_sentence(dytrack, command, option, value):
    done = dytrack(command, option, value)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr

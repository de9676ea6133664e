"""The arguments of a service are checked before anything is built."""

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")

from dytrack_platform.errors import ConfigurationError
from dytrack_platform.experiment.serve.application import read_arguments


def test_arguments_mean_what_the_options_of_the_command_mean():
    given = {"models": ["reference"], "replicas": 3, "deadline_ms": 20, "streams": 5}
    config, settings = read_arguments(given, "open")
    assert (config.models, config.replicas, config.threads) == (("reference",), 3, 1)
    assert (settings.deadline_ms, settings.limits.streams, settings.token) == (20, 5, "open")
    again = read_arguments(given, "open")[1]
    assert settings.secret == again.secret, "a stream resumes on a service that was built anew"
    assert settings.secret != read_arguments(given, "other")[1].secret
    assert "open" not in settings.secret


@pytest.mark.parametrize(
    ("given", "token", "sentence"),
    [
        ({"models": ["reference"]}, "", "DYTRACK_SERVE_TOKEN: is not set"),
        ({}, "open", "args.models: expected a list of references"),
        ({"models": "reference"}, "open", "args.models: expected a list of references"),
        ({"models": ["reference"], "replica": 2}, "open", "args.replica: is unknown; known are"),
        ({"models": ["reference"], "replicas": True}, "open", "args.replicas: expected int, got"),
        ({"models": ["reference"], "idle_s": "9"}, "open", "args.idle_s: expected float, got '9'"),
    ],
)
def test_what_is_wrong_is_named(given, token, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        read_arguments(given, token)

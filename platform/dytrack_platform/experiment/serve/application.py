"""The server as an application of Ray Serve's own configuration files, for a RayService.

Where ``dytrack serve`` starts Ray Serve and stays with it, a RayService keeps Serve running and
only names what to build: ``import_path: dytrack_platform.experiment.serve.application:build``. The
token comes from the environment of the pods, never from the file, which everybody may read.
"""

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from dytrack_platform.experiment.serve.deployment import ServeConfig, bind, make_board  # Ray first

from ray import serve  # isort: skip

from dytrack_platform.errors import ConfigurationError
from dytrack_platform.serving.limits import Limits, Settings

TOKEN = "DYTRACK_SERVE_TOKEN"
_OF_CONFIG = {"replicas": int, "threads": int, "runtime": str, "precision": str, "device": str}
_OF_SETTINGS = {"deadline_ms": float, "audit_every": int, "correct": bool, "poll_s": float}
_OF_LIMITS = {"streams": int, "idle_s": float}


def build(arguments: dict[str, Any]) -> serve.Application:
    """Build the application; Ray Serve calls it with ``args`` of the configuration file.

    Args:
        arguments: ``models`` (list of references, the first is the default), and any of replicas,
            threads, runtime, precision, device, deadline_ms, audit_every, correct, poll_s, streams
            and idle_s, which mean what the options of ``dytrack serve`` mean.

    Raises:
        ConfigurationError: An argument is unknown or of the wrong type, or there is no token.
    """
    config, settings = read_arguments(arguments, os.environ.get(TOKEN, ""))
    # It outlives the task that builds; replicas come back to it after its node was lost.
    make_board(lifetime="detached", max_restarts=-1)
    return bind(config, settings)


def read_arguments(arguments: Mapping[str, Any], token: str) -> tuple[ServeConfig, Settings]:
    """Check the arguments of :func:`build`.

    Raises:
        ConfigurationError: An argument is unknown or of the wrong type, or the token is empty.
    """
    if not token:
        raise ConfigurationError(
            f"{TOKEN}: is not set, and a service is reached by others; set it from a secret"
        )
    known = {"models", *_OF_CONFIG, *_OF_SETTINGS, *_OF_LIMITS}
    if unknown := sorted(set(arguments) - known):
        raise ConfigurationError(f"args.{unknown[0]}: is unknown; known are {sorted(known)}")
    models = arguments.get("models")
    if not (isinstance(models, list) and models and all(isinstance(one, str) for one in models)):
        raise ConfigurationError(
            f"args.models: expected a list of references such as models:/dytrack@champion, got "
            f"{models!r}"
        )
    limits = Limits(**_typed(arguments, _OF_LIMITS))
    config = ServeConfig(models=tuple(models), **_typed(arguments, _OF_CONFIG))
    # All replicas have to know each other's resume tokens, and so does a service that was built
    # anew: the key follows from what only they know.
    secret = hashlib.sha256(f"resume {token}".encode()).hexdigest()
    settings = Settings(
        limits=limits, token=token, secret=secret, **_typed(arguments, _OF_SETTINGS)
    )
    return config, settings


def _typed(arguments: Mapping[str, Any], types: Mapping[str, type]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, kind in types.items():
        if name not in arguments:
            continue
        value = arguments[name]
        fits = isinstance(value, (int, float) if kind is float else kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise ConfigurationError(f"args.{name}: expected {kind.__name__}, got {value!r}")
        found[name] = value
    return found

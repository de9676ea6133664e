"""What a job may be told: its record shows its words and its environment to everybody."""

import os
import re
from collections.abc import Iterable, Mapping

from dytrack_platform.errors import ConfigurationError
from dytrack_platform.storage.job import SECRETS

STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
"""Ray's name for the seconds between a job's SIGTERM and its SIGKILL."""
_FORWARDED = (
    *("MLFLOW_TRACKING_URI", "MLFLOW_S3_ENDPOINT_URL", "DYTRACK_JOURNALS", "AWS_ENDPOINT_URL"),
    *("AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION", "AWS_REGION"),
    *("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION"),
)
"""Settings of this shell that the job needs too; secrets belong to the cluster, not to a job."""
_SECRET_WORDS = ("SECRET", "TOKEN", "PASSWORD", "PASSWD", "CREDENTIAL", "API_KEY", "ACCESS_KEY")
_KEY_IN_URL = re.compile(
    r"://[^/\s?#]*@|[?&](?:access_key|secret_key|session_token|password|token)=", re.IGNORECASE
)
"""A user's name or password before the host, or a key among the options."""


def environment(
    given: Mapping[str, str], secrets: Iterable[str], stop_wait_s: int
) -> dict[str, str]:
    """Return a job's variables.

    Args:
        given: What the user wants set beside the settings of this shell.
        secrets: Names of what its node must have.
        stop_wait_s: Seconds that it may take to end.

    Raises:
        ConfigurationError: One is a secret.
    """
    for name in given:
        if any(word in name.upper() for word in _SECRET_WORDS):
            raise ConfigurationError(
                f"--env {name}: a job's record shows its environment to everybody; set it on the "
                f"cluster and give --secret {name}"
            )
    settings = {name: os.environ[name] for name in _FORWARDED if name in os.environ}
    settings |= given
    for name, value in settings.items():
        if holds_key(value):
            raise ConfigurationError(
                f"{name}: holds a user's name, a password or a key, and a job's record shows its "
                f"environment to everybody; set it on the cluster and give --secret {name}"
            )
    settings.setdefault(STOP_WAIT, str(stop_wait_s))
    if not settings[STOP_WAIT].isdecimal():
        raise ConfigurationError(
            f"--env {STOP_WAIT}: expected whole seconds, got {settings[STOP_WAIT]!r}"
        )
    if named := ",".join(secrets):
        settings[SECRETS] = named
    return settings


def require_no_key(words: Iterable[str]) -> None:
    """Refuse a command with a password or a key in an address.

    Raises:
        ConfigurationError: A word holds one.
    """
    for word in words:
        if holds_key(word):
            raise ConfigurationError(
                f"{word.partition('://')[0]}://...: holds a user's name, a password or a key, and "
                "a job's record shows its command to everybody; set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY where the nodes are started, and name them with --secret"
            )


def holds_key(text: str) -> bool:
    """Say whether an address in a text holds a user's name, a password or a key."""
    return bool(_KEY_IN_URL.search(text))

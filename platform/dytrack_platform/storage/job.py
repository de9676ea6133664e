"""What a job on a cluster must not do: leave results in a folder that is removed with it."""

import os
from pathlib import Path

from dytrack_platform.errors import ConfigurationError

_IN_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets it for the command of a job, and for nothing else."""
SECRETS = "DYTRACK_SECRETS"
"""Names of the variables that the job's node must have, with commas."""


def in_job() -> bool:
    """Say whether this process is the command of a submitted job."""
    return _IN_JOB in os.environ


def require_kept(what: str, location: str | Path | None) -> None:
    """Refuse a place that is gone when the job ends; anywhere else, nothing is refused.

    Args:
        what: The key or option that named the place.
        location: A path or URL; None is passed over.

    Raises:
        ConfigurationError: This is a job, and the place is a relative path.
    """
    if location is None or not in_job():
        return
    if "://" not in str(location) and not Path(location).is_absolute():
        raise ConfigurationError(
            f"{what}: {location} would lie in the job's own folder, which is removed with the job; "
            "name an absolute path that all nodes share, or a URL such as s3://bucket/runs"
        )


def require_store(uri: str, given: bool) -> None:
    """Refuse an MLflow store that is gone when the job ends.

    Args:
        uri: The store.
        given: Whether somebody named it.

    Raises:
        ConfigurationError: This is a job, and the store lies in its folder.
    """
    if not in_job():
        return
    path = uri.removeprefix("sqlite:///") if uri.startswith("sqlite:///") else None
    if not given or (path is not None and not path.startswith("/")):
        raise ConfigurationError(
            "MLFLOW_TRACKING_URI: is not set for this job, or names a file in the job's own "
            "folder, which is removed with it; set it to the address of a server, and submit again"
        )


def require_secrets() -> None:
    """Refuse to start without the secrets that the job was promised.

    Raises:
        ConfigurationError: The node that the command runs on lacks one.
    """
    for name in filter(None, os.environ.get(SECRETS, "").split(",")):
        if not os.environ.get(name):
            raise ConfigurationError(
                f"{name}: the job needs this secret and its node does not have it; set it where "
                "the nodes are started (a Kubernetes secret, the service's environment)"
            )

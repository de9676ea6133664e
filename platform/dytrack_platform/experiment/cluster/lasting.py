"""What a job leaves has to last: refused is what would be removed with the job."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dytrack_platform.config import locations
from dytrack_platform.errors import ConfigurationError
from dytrack_platform.experiment.cluster.job_settings import holds_key

if TYPE_CHECKING:
    from dytrack_platform.config import ExperimentConfig
    from dytrack_platform.experiment.cluster.jobs import JobRequest

_RECORDING = ("train", "search", "evaluate", "publish")
"""Commands that write to MLflow."""
_DATABASES = ("postgresql", "mysql", "mssql")
_SQLITE = "sqlite:///"
_SERVER = (
    "set it to the address of a server that the cluster reaches (dytrack mlflow up starts one)"
)


def require_lasting(
    request: "JobRequest", config: "ExperimentConfig | None", environment: Mapping[str, str]
) -> None:
    """Refuse what would be written into the job's own folder, or to a file of one machine.

    Args:
        request: What is to run.
        config: Its recipe; None where it has none.
        environment: Its variables.

    Raises:
        ConfigurationError: The store, ``train.storage``, the data or ``--root`` is such a place.
    """
    if records(request):
        store = environment.get("MLFLOW_TRACKING_URI", "")
        if not _lasts(store) and not (not store and "MLFLOW_TRACKING_URI" in request.secrets):
            raise ConfigurationError(
                "MLFLOW_TRACKING_URI: a job's records go to a server that the cluster reaches, got "
                f"{store or 'nothing'}; {_SERVER}"
            )
    if request.root is not None:
        _require_shared("--root", request.root)
    if config is not None:
        for key, place in locations.of_recipe(config).items():
            _require_shared(key, place)


def records(request: "JobRequest") -> bool:
    """Say whether a command writes to MLflow."""
    return request.command[0] in _RECORDING and request.records


def one_machines_store(environment: Mapping[str, str]) -> str | None:
    """Return the store if it is a file, which only this machine has; None if it is not."""
    store = environment.get("MLFLOW_TRACKING_URI", "")
    return store if store.startswith(_SQLITE) else None


def require_this_machine(store: str, address: str, *, here: bool) -> None:
    """Refuse a store in a file for a cluster elsewhere, be it behind a forwarded port.

    Raises:
        ConfigurationError: ``here`` does not hold: nodes of the cluster are other machines.
    """
    if not here:
        raise ConfigurationError(
            f"MLFLOW_TRACKING_URI: {store} is a file of this machine, and nodes of the cluster at "
            f"{address} are others; {_SERVER}"
        )


def _lasts(store: str) -> bool:
    scheme = urlsplit(store).scheme.partition("+")[0]
    if scheme in ("http", "https", *_DATABASES):
        return True
    return store.startswith(f"{_SQLITE}/")


def _require_shared(key: str, place: str) -> None:
    if holds_key(place):
        raise ConfigurationError(
            f"{key}: holds a user's name, a password or a key, which would be stored with what the "
            "job leaves; set it where the nodes are started, and give its name with --secret"
        )
    if "://" not in place and not Path(place).is_absolute():
        raise ConfigurationError(
            f"{key}: {place} is a folder of this machine, and the job runs elsewhere; name an "
            "absolute path that all nodes share, or a URL such as s3://bucket/runs"
        )

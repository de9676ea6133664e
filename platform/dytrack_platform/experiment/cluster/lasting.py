"""What a job leaves has to last: refused is what would be removed with the job."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dytrack_platform.errors import ConfigurationError

if TYPE_CHECKING:
    from dytrack_platform.experiment.cluster.jobs import JobRequest

_RECORDING = ("train", "search", "evaluate", "publish")
"""Commands that write to MLflow."""


def require_lasting(request: "JobRequest", environment: Mapping[str, str]) -> None:
    """Refuse what would be written into the job's own folder, or to a file of one machine.

    Raises:
        ConfigurationError: The store or ``train.storage`` is such a place, or the recipe is wrong.
    """
    command, *rest = request.command
    here = urlsplit(request.address).hostname in ("127.0.0.1", "localhost", "::1")
    store = environment.get("MLFLOW_TRACKING_URI", "")
    named = store or "MLFLOW_TRACKING_URI" in request.secrets
    file = store.removeprefix("sqlite:///") if store.startswith("sqlite:///") else None
    lost = not named or (file is not None and not (here and file.startswith("/")))
    if command in _RECORDING and lost:
        raise ConfigurationError(
            "MLFLOW_TRACKING_URI: a job's records go to a server that the cluster reaches, got "
            f"{store or 'nothing'}; set it to the server's address (dytrack mlflow up starts one)"
        )
    if command in ("train", "search") and rest:
        _recipe(rest)


def _recipe(words: Sequence[str]) -> None:
    from dytrack_platform.config import load, parse_override

    path = Path(words[0])
    if not path.is_file():  # the name of one that comes with dytrack, or a mistake: the job says so
        return
    changes = [
        second if first == "--set" else first.removeprefix("--set=")
        for first, second in zip(words, [*words[1:], ""], strict=True)
        if first == "--set" or first.startswith("--set=")
    ]
    config = load(path, dict(parse_override(text) for text in changes))
    sources = {f"data.train.{n}.path": s.path for n, s in enumerate(config.data.train)}
    sources |= {f"data.validation.{n}.path": s.path for n, s in enumerate(config.data.validation)}
    for key, place in {"train.storage": config.train.storage, **sources}.items():
        if "://" not in place and not Path(place).is_absolute():
            raise ConfigurationError(
                f"{key}: {place} is a folder of this machine, and the job runs elsewhere; name an "
                "absolute path that all nodes share, or a URL such as s3://bucket/runs"
            )

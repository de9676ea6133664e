"""The model registry: find a tracker again by name, alias, version or path."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from dytrack_platform.experiment.runs import tracking  # sets MLflow's environment first

import mlflow  # isort: skip

from dytrack_model import checkpoint
from dytrack_model.folders import SHIPPED
from dytrack_model.runtime import export
from dytrack_platform.errors import ModelLookupError, first_line
from dytrack_platform.storage import files


def find(reference: str, download_to: Path | None = None) -> Path:
    """Return the folder of a tracker: a path, ``models:/NAME@ALIAS`` or ``models:/NAME/3``.

    Args:
        reference: Folder or URL of a tracker or of a training run, or a registry name.
        download_to: Where files go that are not on this machine yet; to a folder that is removed
            at the end of the process where left out.

    Raises:
        ModelLookupError: The reference leads to nothing.
    """
    if not reference.startswith("models:/"):
        if "://" in reference:
            return _in_store(reference, download_to)
        return _on_disk(Path(reference))
    tracking.look()
    try:
        local = mlflow.artifacts.download_artifacts(
            artifact_uri=reference, dst_path=str(download_to or _until_the_end())
        )
    except tracking.STORE_ERRORS as error:
        reason = first_line(error)
        if not (tracking.is_absence(error) or isinstance(error, FileNotFoundError)):
            asked = f"{reference}: the store {tracking.shown()} does not give it"
            raise tracking.failure(error, asked) from error
        raise ModelLookupError(
            f"{reference}: not in the registry {tracking.shown()}: {reason}; "
            "dytrack publish puts a tracker there"
        ) from error
    found = list((Path(local) / "artifacts").rglob(checkpoint.DESCRIPTION))
    if not found:
        raise ModelLookupError(f"{reference}: this model was not made by dytrack publish")
    return found[0].parent


def is_remote(reference: str) -> bool:
    """Say whether a reference leads into the registry or a store, not to a folder here."""
    return "://" in reference or reference.startswith("models:/")


@contextmanager
def located(reference: str) -> Iterator[Path]:
    """Yield the folder of a tracker; what had to be downloaded is removed afterwards.

    Raises:
        ModelLookupError: The reference leads to nothing.
    """
    with TemporaryDirectory(prefix="dytrack-") as name:
        yield find(reference, Path(name))


def version_of(reference: str) -> tuple[str, str | None]:
    """Return ``NAME/3``, and the run that trained that version where it says so.

    An alias moves on; the number stays. What the registry cannot say stays as it was named.

    Args:
        reference: ``models:/NAME@ALIAS`` or ``models:/NAME/3``.
    """
    named = reference.removeprefix("models:/")
    name, _, which = named.replace("@", "/").rpartition("/")
    tracking.look()
    client = mlflow.MlflowClient()
    try:
        if "@" in named:
            found = client.get_model_version_by_alias(name, which)
        else:
            found = client.get_model_version(name, which)
    except tracking.STORE_ERRORS:
        return named, None
    trained = found.tags.get("lineage.training_run")
    return f"{found.name}/{found.version}", None if trained is None else str(trained)


def load(reference: str) -> checkpoint.SavedTracker:
    """Load a tracker by path or registry name.

    Raises:
        ModelLookupError: The reference leads to nothing.
        CheckpointError: It leads to a damaged tracker.
    """
    with located(reference) as folder:
        return checkpoint.load(folder)


_downloads: list[TemporaryDirectory[str]] = []
"""Each is removed when this list goes, with the process."""


def _until_the_end() -> Path:
    _downloads.append(TemporaryDirectory(prefix="dytrack-"))
    return Path(_downloads[-1].name)


def _in_store(url: str, download_to: Path | None) -> Path:
    """Fetch a tracker from an object store; the URL is its own or that of its run."""
    target = download_to or _until_the_end()
    for place in (url.rstrip("/"), f"{url.rstrip('/')}/tracker"):
        if files.exists(f"{place}/{checkpoint.DESCRIPTION}"):
            files.copy_folder(place, str(target / "tracker"))
            return target / "tracker"
    raise ModelLookupError(f"{url}: no tracker is there, and no run with one")


def _on_disk(path: Path) -> Path:
    if str(path) not in SHIPPED and not path.exists():
        raise ModelLookupError(
            f"{path}: no such tracker; give its folder, models:/NAME@ALIAS for a published one, or "
            f"{' or '.join(SHIPPED)} for those that come with dytrack"
        )
    exported = (path / export.DESCRIPTION).is_file()
    if exported and not (path / checkpoint.DESCRIPTION).is_file():
        raise ModelLookupError(
            f"{path}: is an export, which track, serve and Tracker.load run; this command needs "
            "the tracker that it was made from"
        )
    return checkpoint.find(path)

"""Build what a search left again from MLflow alone, and find a member's tracker for publishing."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from dytrack_platform.experiment.runs import tracking  # sets MLflow's environment first

import mlflow  # isort: skip
from mlflow.exceptions import MlflowException

from dytrack_platform.config import parse_text
from dytrack_platform.errors import ModelLookupError
from dytrack_platform.experiment.search.front import members, page, picking
from dytrack_platform.experiment.search.front.members import DETAILS, FRONT, Member
from dytrack_platform.storage import files
from dytrack_platform.storage.atomic import write_atomically
from dytrack_platform.storage.outputs import check_folder

_RECORD = "search.json"


def run_of(reference: str) -> str:
    """Return the run of a search: the id itself, or what the record in its folder says.

    Raises:
        ModelLookupError: There is no such run or folder.
    """
    record = files.read_json(f"{files.absolute(reference)}/{_RECORD}")
    run_id = str(record["run_id"]) if record and record.get("run_id") else reference
    if not tracking.exists(run_id):
        raise ModelLookupError(
            f"{reference}: neither a folder of a search nor a run in the store {tracking.shown()}"
        )
    return run_id


def rebuild(reference: str, out: Path | None = None) -> list[Path]:
    """Write front, page, picture and recipes of a search from what MLflow keeps of it.

    Args:
        reference: The run's id, or the search's folder.
        out: Where to; a folder named after the run if None.

    Raises:
        ModelLookupError: There is no such run, or it is of no finished search.
        StorageError: A file cannot be written.
    """
    run_id = run_of(reference)
    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    folder = out or Path(f"{run.info.run_name}-report")
    check_folder("--out", folder, members.WRITTEN, members.MARKS)
    with TemporaryDirectory(prefix="dytrack-") as name:
        kept = {file: _json(run_id, file, Path(name)) for file in (FRONT, DETAILS)}
        record = _json(run_id, _RECORD, Path(name), required=False) or {"trials": []}
        recipe = _text(run_id, "recipe.yaml", Path(name))
    links = links_of(run_id)
    rows, details = kept[FRONT], kept[DETAILS]
    write_atomically(folder / FRONT, json.dumps(rows, indent=2) + "\n")
    write_atomically(folder / DETAILS, json.dumps(details, indent=1) + "\n")
    written = [folder / FRONT, folder / DETAILS, *page.write(folder, rows, details, record, links)]
    config = parse_text(recipe, f"recipe of run {run_id}")
    found = [members.member_of(row) for row in rows]
    return written + members.write_recipes(found, config, folder)


def load_front(reference: str) -> tuple[list[Member], dict[str, Any]]:
    """Read the members and the details of a search: from its folder, else from MLflow.

    Raises:
        ModelLookupError: There is no finished search.
        StorageError: A file in the folder is damaged.
    """
    folder = Path(reference)
    if (folder / FRONT).is_file() and (folder / DETAILS).is_file():
        return members.load(folder), files.read_json(str((folder / DETAILS).absolute())) or {}
    run_id = run_of(reference)
    with TemporaryDirectory(prefix="dytrack-") as name:
        rows, details = (_json(run_id, file, Path(name)) for file in (FRONT, DETAILS))
    return [members.member_of(row) for row in rows], details


def pick_member(reference: str, pick: str | None) -> Member:
    """Return the member of a search that is wanted; the knee point where nothing is said.

    Raises:
        ConfigurationError: ``pick`` cannot be read.
        ModelLookupError: There is no such search, or no member keeps what is asked for.
    """
    wanted = None if pick is None else picking.parse(pick)
    found, details = load_front(reference)
    return picking.choose(found, tuple(details["objectives"]), wanted)


def links_of(run_id: str) -> dict[str, str]:
    """Return the address of each trial's run by its name, where the store is a server with pages.

    Nothing where it does not answer: a page without links is better than none.
    """
    store = urlsplit(tracking.uri())
    if not store.scheme.startswith("http"):
        return {}
    client = mlflow.MlflowClient()
    try:
        experiment = client.get_run(run_id).info.experiment_id
        below = tracking.children(client, run_id, experiment)
    except tracking.STORE_ERRORS:
        return {}
    plain = store._replace(netloc=store.netloc.rpartition("@")[2]).geturl()  # without a password
    base = f"{plain.rstrip('/')}/#/experiments/{experiment}/runs/"
    return {str(child.info.run_name): base + str(child.info.run_id) for child in below}


def _json(run_id: str, name: str, folder: Path, *, required: bool = True) -> Any:  # noqa: ANN401
    text = _text(run_id, name, folder, required=required)
    return None if text is None else json.loads(text)


def _text(run_id: str, name: str, folder: Path, *, required: bool = True) -> Any:  # noqa: ANN401
    try:
        path = mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path=name, dst_path=str(folder)
        )
    except (MlflowException, OSError) as error:
        if not required:
            return None
        raise ModelLookupError(
            f"run {run_id}: has no {name}; it is of no search that finished"
        ) from error
    return Path(path).read_text()

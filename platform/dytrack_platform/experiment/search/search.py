"""A search from its recipe to its front: checked, locked, recorded, continued, and logged."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from dytrack_model import checkpoint
from dytrack_model.config import require
from dytrack_model.runtime.devices import torch_device
from dytrack_platform.config import ExperimentConfig, dump, flatten, resolve, to_dict
from dytrack_platform.config.search import PointRule
from dytrack_platform.errors import DataError
from dytrack_platform.experiment.paths import with_absolute_paths
from dytrack_platform.experiment.registry import registry
from dytrack_platform.experiment.runs import provenance, tracking
from dytrack_platform.experiment.runs.journal import Journal
from dytrack_platform.experiment.runs.journal_folder import journal_folder, kept_beside
from dytrack_platform.experiment.runs.run_log import logged_run
from dytrack_platform.experiment.runs.store_lock import store_lock
from dytrack_platform.experiment.search import fingerprint
from dytrack_platform.experiment.search import space as spaces
from dytrack_platform.experiment.search.forecast import SearchCost, search_cost
from dytrack_platform.experiment.search.front import members
from dytrack_platform.experiment.search.request import Request, Say, Searched, Show
from dytrack_platform.experiment.search.running import Running
from dytrack_platform.experiment.search.trials.record import SearchRecord
from dytrack_platform.storage import files
from dytrack_platform.storage.outputs import check_folder
from dytrack_platform.storage.run_lock import run_lock
from dytrack_platform.training import worker

__all__ = ["Request", "foretell", "search"]

_LOCK = "search.lock"


def search(request: Request, show: Show, say: Say) -> Searched:
    """Search, or go on with a search of the same recipe that was interrupted or had fewer trials.

    Args:
        request: What is asked for.
        show: Called with how far it is, at every event.
        say: Called with one-line messages.

    Raises:
        ConfigurationError: The space, the objectives, the constraints or the reference point are
            wrong, or the folder holds another search.
        DataError: Data are missing, changed, or too few.
        ModelLookupError: The model reference leads to nothing.
        StorageError: Another search is at work in the folder, or it cannot be written.
        TrainingError: No trial finished, or no point is worth anything.
    """
    config, model, data = _checked(request, say)
    location, folder = request.location, journal_folder(request.location)
    with (
        run_lock(folder, wait_s=2.0, name=_LOCK),
        store_lock(f"{location}/{_LOCK}", folder, say) as require_lock,
    ):
        known = files.read_json(f"{location}/search.json")
        require(
            known is not None or not request.resume,
            f"--resume: {location} holds no search to go on with",
        )
        record = SearchRecord.open(location, request.mode, config, data)
        record.before_write = require_lock
        if record.run_id is not None and not tracking.exists(record.run_id):
            record.run_id = None
        if known is not None and record.trials:
            say(f"going on with the search in {location}: {len(record.trials)} trials are there")
        name = Path(location).name
        with (
            kept_beside(location, say, new=record.run_id is None),
            logged_run(name, folder, record.run_id, say, "search", location) as (run_id, log),
        ):
            record.run_id = run_id
            _describe(log, request, config)
            return Running(request, config, record, log, show, say, folder).run(model)


def foretell(request: Request, say: Say) -> SearchCost:
    """Check what :func:`search` checks, and say what it comes to; nothing is written or run.

    Raises:
        ConfigurationError: As :func:`search`.
        DataError: As :func:`search`.
        ModelLookupError: The model reference leads to nothing.
        StorageError: The record in the folder is damaged.
    """
    config, model, data = _checked(request, say)
    require(
        not request.resume or files.exists(f"{request.location}/search.json"),
        f"--resume: {request.location} holds no search to go on with",
    )
    return search_cost(
        request, SearchRecord.open(request.location, request.mode, config, data), model
    )


def _checked(request: Request, say: Say) -> tuple[ExperimentConfig, Path | None, dict[str, Any]]:
    """Refuse what could not be searched; return recipe, tracker of post-hoc, and fingerprint."""
    _check_request(request)
    model = _model(request)
    config = request.config
    if model is not None:
        # The tracker is there: what the recipe says of a model is not what is searched.
        own = checkpoint.read_config(model).to_dict()
        config = resolve({**to_dict(config), "model": own})
    spaces.check(config, request.mode)
    check_folder("--out", request.location, members.WRITTEN, members.MARKS)
    config = with_absolute_paths(config)
    # What auto comes to stands in the record: a search that goes on must not change it.
    config = replace(config, search=replace(config.search, rule=rule_of(request)))
    if model is None or request.source is None:
        _check_held_out(config)
    if request.mode != "post-hoc":
        for sentence in worker.check(config):
            say(f"{config.train.init_from}: {sentence}")
    return config, model, _data(request, config, model)


def _check_request(request: Request) -> None:
    posthoc = request.mode == "post-hoc"
    require(
        posthoc == (request.model is not None),
        "--model: names the trained tracker of mode post-hoc"
        + ("; give one" if posthoc else f", got one in mode {request.mode}"),
    )
    torch_device(request.how.device)


def rule_of(request: Request) -> PointRule:
    """Return what points leave by; auto is ambiguity where trackers follow sequences.

    Raises:
        ConfigurationError: Ambiguity is asked for where trackers are judged on pairs, which have
            no motion.
    """
    posthoc = request.mode == "post-hoc" and request.source is not None
    followed = posthoc or bool(request.config.data.resident_validation)
    rule = request.config.search.rule
    require(
        rule != "ambiguity" or followed,
        "search.rule: ambiguity is read off sequences that are followed; give --dataset in mode "
        "post-hoc or data.resident_validation, or take thresholds",
    )
    if rule == "auto":
        return "ambiguity" if followed else "thresholds"
    return rule


def _check_held_out(config: ExperimentConfig) -> None:
    """Refuse validation data that cannot be halved, before the first trial."""
    if config.data.resident:
        require(
            bool(config.data.resident_validation),
            "data.resident_validation: is empty, and a search scores on held-out sequences",
        )
        return
    from dytrack_platform.datasets.loading.sources import subset_rows

    rows = subset_rows(config.data, config.model, "validation")
    names = {row.name for some in rows for row in some}
    if len(names) < 2:
        raise DataError(
            f"data.validation: holds {len(names)} sequence, and thresholds are chosen on one half "
            "of them and scored on the other; raise data.validation_share, or name more data"
        )


def _model(request: Request) -> Path | None:
    return None if request.model is None else registry.find(request.model)


def _data(request: Request, config: ExperimentConfig, model: Path | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if model is not None:
        found["model"] = fingerprint.of_tracker(model)
    if request.source is not None:
        found["sequences"] = fingerprint.of_sequences(request.source)
    if model is None or request.source is None:
        found |= fingerprint.of_recipe(config)
    return found


def _describe(log: Journal, request: Request, config: ExperimentConfig) -> None:
    log.parameters(flatten(to_dict(config)))
    log.tags(
        {**provenance.code(), "mode": request.mode, "machine": members.machine_of(request.how)}
    )
    log.file("recipe.yaml", dump(config).encode())

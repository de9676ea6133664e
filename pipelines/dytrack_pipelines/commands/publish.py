"""Register a tracker: ``dytrack publish RUN --evaluation RESULTS --promote``.

Takes seconds on any machine. The version carries the tracker, its code, exits, operating points,
costs, scores and where it came from; ``models:/NAME@ALIAS`` names it from then on. ``champion``
moves only with ``--promote``, and only if the gate holds: as good as the version that has it,
sequence by sequence on the same data, and not slower on this machine.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import AsJson

if TYPE_CHECKING:
    from dytrack_platform.experiment.registry.gate import Gate
    from dytrack_platform.experiment.registry.promote import Outcome
    from dytrack_platform.experiment.registry.publishing import Version

REFUSED = 3
"""Exit code of a promotion that the gate refused; the version is there."""


def publish(
    tracker: Annotated[
        str | None, typer.Argument(help="A tracker's or a training run's folder or URL.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the registered model.")] = "dytrack",
    alias: Annotated[
        list[str] | None,
        typer.Option(help="A further alias to move to this version; repeatable."),
    ] = None,
    from_search: Annotated[
        str | None, typer.Option(help="In place of a tracker: a search's run or folder.")
    ] = None,
    pick: Annotated[
        str | None, typer.Option(help='Of that search: "ms<=8, max auc"; the knee point if none.')
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="Folder of its evaluation, whose scores go with it.")
    ] = None,
    promote: Annotated[
        bool, typer.Option("--promote", help="Move champion to it, if the gate holds.")
    ] = False,
    point: Annotated[str, typer.Option(help="Operating point that the gate compares.")] = (
        "balanced"
    ),
    margin: Annotated[
        float,
        typer.Option(help="Success AUC that the interval may reach below champion's."),
    ] = 0.01,
    better: Annotated[
        bool, typer.Option("--better", help="Ask for an interval above zero instead.")
    ] = False,
    max_ms: Annotated[
        float | None, typer.Option(help="Most milliseconds of a frame at the point, here.")
    ] = None,
    max_gmacs: Annotated[
        float | None, typer.Option(help="Most GMACs of a frame at the point.")
    ] = None,
    slower: Annotated[
        float, typer.Option(help="Share by which a frame may take longer than champion's.")
    ] = 0.25,
    force: Annotated[
        str, typer.Option(help="Why champion moves although the gate refuses; written down.")
    ] = "",
    threads: Annotated[
        int, typer.Option(min=1, max=1024, help="Threads that milliseconds are of.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Register a tracker in MLflow with all that is known of it; promote it if it earns that."""
    import torch

    from dytrack_platform.experiment.registry import publishing
    from dytrack_platform.experiment.registry.gate import Gate

    torch.set_num_threads(threads)
    gate = Gate(
        point=point,
        margin=margin,
        better=better,
        max_ms=max_ms,
        max_gmacs=max_gmacs,
        slower=slower,
    )
    # Find the tracker, and what is known of where it came from.
    if (tracker is None) == (from_search is None):
        raise typer.BadParameter("give either a tracker's folder, or --from-search RUN")
    with _found(tracker, from_search, pick) as (folder, origin):
        # Register it.
        version = publishing.publish(
            folder,
            name,
            aliases=alias or (),
            evaluation=evaluation,
            lineage=origin,
            threads=threads,
        )
    screen.say(
        f"published {version.name} version {version.version}: {version.uri} "
        f"({', '.join(version.aliases)})"
    )
    # Let it earn the alias.
    outcome = promoted(version, gate, force) if promote or force else None
    if as_json:
        screen.json({**asdict(version), "promotion": outcome and asdict(outcome)})
    if outcome is not None and not outcome.verdict.holds and not force:
        raise typer.Exit(REFUSED)


@contextmanager
def _found(
    tracker: str | None, from_search: str | None, pick: str | None
) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield the folder of a tracker, or of a search's member, and where it came from."""
    from dytrack_platform.experiment.registry import registry
    from dytrack_platform.experiment.search.front.pick import picked

    if from_search is not None:
        with picked(from_search, pick) as folder:
            yield folder, {"search": from_search}
    elif tracker is not None:
        with registry.located(tracker) as folder:
            yield folder, lineage(tracker, folder)


def lineage(reference: str, folder: Path) -> dict[str, str]:
    """Gather where a tracker came from: its training's run and data.

    Args:
        reference: How the tracker was named; in a store the record lies in the run's folder.
        folder: Of the tracker here; the run's own folder holds it.
    """
    from dytrack_platform.storage import files

    stored = "://" in reference
    run = reference.rstrip("/").removesuffix("/tracker") if stored else str(folder.parent)
    record = files.read_json(f"{run}/experiment.json") or {}
    known = {
        "training_run": record.get("run_id"),
        "training_data": record.get("fingerprint") or record.get("data"),
    }
    return {key: str(value) for key, value in known.items() if value}


def promoted(version: "Version", gate: "Gate", force: str = "") -> "Outcome":
    """Promote a version and say what came of it."""
    from dytrack_platform.experiment.registry.promote import promote

    outcome = promote(version.name, version.version, gate, force=force)
    if not outcome.verdict.holds:
        for reason in outcome.verdict.refusals:
            screen.say(f"the gate refuses version {version.version}: {reason}")
        if not force:
            kept = f"version {outcome.before}" if outcome.before else "nobody"
            screen.say(f"champion stays with {kept}; the refusal is written on the version")
            return outcome
    before = f"version {outcome.before}" if outcome.before else "nobody"
    screen.say(
        f"champion moved from {before} to version {version.version}; aliases moved: "
        f"{', '.join(outcome.moved) or 'none'}"
    )
    return outcome

"""Search for trackers worth having: ``dytrack search RECIPE``.

    dytrack search RECIPE --mode post-hoc --model RUN --dataset got10k --root DATA --split val
    dytrack search RECIPE --mode supernet
    dytrack search RECIPE --trials 24
    dytrack search report RUN

Hardware: ``search.max_concurrent`` trials at a time, each with the CPUs or the part of a GPU that
the recipe gives. Time: post-hoc takes as long as tracking the sequences some times over; 24 short
trials on made data took minutes on 2 cores (docs/LOG.md). Run it again to go on, with as many
trials or more. Leaves ``front.json``, ``front.html`` and ``front/NN.yaml``; see docs/search.md.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dytrack_pipelines import recipes
from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import AsJson, DryRun, Overrides, Precision, Runtime

if TYPE_CHECKING:
    from dytrack_platform.experiment.search.search import Request


def search(
    recipe: Annotated[
        str, typer.Argument(help="A recipe file or its name; or the word report, then a run.")
    ],
    run: Annotated[
        str | None, typer.Argument(help="After report: a search's run in MLflow, or its folder.")
    ] = None,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    mode: Annotated[
        Literal["post-hoc", "supernet", "full"],
        typer.Option(
            help="post-hoc: exits and thresholds of a trained tracker. supernet: one training, "
            "placements inherit. full: every trial trains."
        ),
    ] = "full",
    model: Annotated[
        str | None,
        typer.Option(help="post-hoc: a tracker's or run's folder, or models:/NAME@ALIAS"),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Layout of held-out sequences, for the closed loop")
    ] = None,
    root: Annotated[str | None, typer.Option(help="Their folder or URL")] = None,
    split: Annotated[str | None, typer.Option(help="Their split; the dataset's default")] = None,
    out: Annotated[
        str | None, typer.Option(help="Folder of the search; train.storage and its name if none")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="As search.trials")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Refuse to begin anew"),
    ] = False,
    pick: Annotated[
        str | None, typer.Option(help='Show one member: "ms<=8, max auc"; the knee point if none')
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, max=1024, help="Threads that milliseconds are for")
    ] = 1,
    device: Annotated[str, typer.Option(help="Device of milliseconds: cpu or cuda")] = "cpu",
    runtime: Runtime = None,
    precision: Precision = "auto",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Search exits, thresholds and training on accuracy and cost at once."""
    from dytrack_pipelines.terminal import search_screen
    from dytrack_platform.config import load, parse_override
    from dytrack_platform.config.schema import ResidentSource
    from dytrack_platform.errors import ConfigurationError

    if recipe == "report":
        _report(run, out, as_json)
        return
    if run is not None:
        raise ConfigurationError(f"{run}: only  dytrack search report RUN  takes a second name")
    # Read and check the whole recipe before anything starts.
    changes = dict(parse_override(text) for text in overrides)
    if trials is not None:
        changes["search.trials"] = trials
    config = load(recipes.find(recipe), changes)
    if (dataset is None) != (root is None):
        raise ConfigurationError("--dataset: goes with --root; give both, or neither")
    source = None
    if dataset is not None and root is not None:
        source = ResidentSource(dataset=dataset, root=root, split=split)
    # Only now load what is heavy: a mistake is told at once.
    from dytrack_platform.experiment.search import search as searching
    from dytrack_platform.experiment.search.front import picking
    from dytrack_platform.experiment.search.points.latency import Measuring

    wanted = picking.parse(pick) if pick is not None else None
    request = searching.Request(
        config=config,
        mode=mode,
        model=model,
        source=source,
        out=out,
        resume=resume,
        how=Measuring(
            runtime=runtime or "torch", precision=precision, threads=threads, device=device
        ),
    )
    if dry_run:
        _foretell(request, as_json)
        return
    # Search; what a killed search finished is not done again.
    with search_screen.watching(config.search) as show:
        searched = searching.search(request, show, screen.say)
    # Show the front, and the member that was asked for.
    search_screen.show_front(searched)
    chosen = picking.choose(searched.front.members, config.search.objectives, wanted)
    screen.say(search_screen.in_words(chosen, "picked" if wanted else "knee point"))
    for file in searched.files:
        if file.suffix != ".yaml":
            screen.say(f"front: {file}")
    if as_json:
        front = searched.front
        screen.json(
            {
                "run": searched.run_id,
                "mode": front.mode,
                "hypervolume": front.hypervolume,
                "members": [member.to_dict() for member in front.members],
                "chosen": chosen.name,
                "files": [str(file) for file in searched.files],
            }
        )


def _foretell(request: "Request", as_json: bool) -> None:
    """Say what a search would do and cost."""
    from dytrack_platform.experiment.search import search as searching

    cost = searching.foretell(request, screen.say)
    there = f", {cost.ended} of them are there" if cost.ended else ""
    rows = [
        ["trainings", f"{cost.trials}{there}; {cost.at_a_time} at a time"],
        ["placements of exits", f"{cost.placements:,}, {cost.settings} threshold settings each"],
        ["run again in closed loop", f"up to {cost.members} members"],
        ["optimiser steps left", f"up to {cost.steps:,}"],
        ["pairs left", f"up to {cost.pairs:,}"],
        ["arithmetic left", f"up to {cost.petaflops:,.2f} PFLOP, at the recipe's own full depth"],
        ["disk for checkpoints", f"up to {cost.disk_bytes / 1e6:,.0f} MB"],
        [
            "time for trainings",
            "not known before the first one has ended here"
            if cost.seconds is None
            else f"about {screen.clock(cost.seconds)}, at the pace of those that ended",
        ],
        ["writes to", cost.folder],
    ]
    screen.table(f"{request.config.name}: what mode {cost.mode} comes to", ["what", ""], rows)
    if as_json:
        screen.json(asdict(cost))


def _report(run: str | None, out: str | None, as_json: bool) -> None:
    """Build a search's page, front and recipes again from MLflow alone."""
    from dytrack_platform.errors import ConfigurationError
    from dytrack_platform.experiment.search.front import rebuild

    if run is None:
        raise ConfigurationError("report: name a search's run in MLflow, or its folder")
    written = rebuild.rebuild(run, Path(out) if out else None)
    for file in written:
        screen.say(f"front: {file}")
    if as_json:
        screen.json({"files": [str(file) for file in written]})

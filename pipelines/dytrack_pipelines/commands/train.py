"""Train a tracker from a recipe: ``dytrack train RECIPE``.

Hardware: whatever the recipe's ``train.workers`` asks for, on this machine or, with
``RAY_ADDRESS`` set, on a Ray cluster. Each recipe states its time and the score to expect.

``--local`` trains in this process instead, without Ray, MLflow and the journal, on one device.

``--dry-run`` says what a training would cost; without a recipe they are listed.

The same command continues a run that was killed, from its last checkpoint.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dytrack_pipelines import recipes
from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import AsJson, DryRun, OptionalRecipe, Overrides

if TYPE_CHECKING:
    from dytrack_platform.config.schema import ExperimentConfig
    from dytrack_platform.training.progress import Progress


def train(
    recipe: OptionalRecipe = None,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    local: Annotated[
        bool, typer.Option("--local", help="Train in this process, without Ray and MLflow.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Train a multi-exit tracker from a recipe, or continue it where it was killed."""
    from dytrack_platform.config import load, parse_override

    if recipe is None:
        rows = [[name, recipes.purpose(name)] for name in recipes.shipped()]
        screen.table("recipes that come with dytrack", ["name", ""], rows)
        screen.say("dytrack train NAME trains one; dytrack config init FILE begins your own")
        if as_json:
            screen.json([{"name": name, "purpose": purpose} for name, purpose in rows])
        raise typer.Exit(2)
    # Read and check the whole recipe before anything starts.
    config = load(recipes.find(recipe), dict(parse_override(text) for text in overrides))
    if dry_run:
        foretold = foretell(config)
        if as_json:
            screen.json(foretold)
        return
    if local:
        from dytrack_platform.training.local import train_local

        state, tracker = train_local(config, screen.say)
        report(state.notes["validation"], str(tracker), config.model.exits)
        if as_json:
            screen.json({"tracker": str(tracker), "validation": state.notes["validation"]})
        return
    # Only now load what is heavy: a mistake is told at once.
    from dytrack_platform.experiment.train.train import train as run

    def show(progress: "Progress") -> None:
        line.show(describe(progress, config.train.epochs, config.train.workers))
        if progress.step % progress.steps_per_epoch == 0:
            screen.say(summarise(progress, config.model.exits))

    # Train, with one line that says where it is.
    screen.say(f"{config.name}: starting {config.train.workers} workers")
    with screen.live_line() as line:
        trained = run(config, show, screen.say)
    # Say what came of it and where it lies.
    report(trained.metrics, trained.tracker, config.model.exits)
    if as_json:
        screen.json({"tracker": trained.tracker, "validation": trained.metrics})


def foretell(config: "ExperimentConfig") -> dict[str, Any]:
    """Say what a training would do and cost, and what of its data is not here; return it too."""
    from dytrack_platform.config import locations
    from dytrack_platform.training.cost import training_cost

    cost = training_cost(config)
    rows = [
        ["parameters", f"{cost.parameters / 1e6:.2f} M"],
        ["GMACs of a frame, by exit", " / ".join(f"{gmacs:.3f}" for gmacs in cost.gmacs)],
        ["optimiser steps", f"{cost.steps:,}"],
        ["pairs", f"{cost.pairs:,}"],
        ["arithmetic in all", f"{cost.petaflops:,.2f} PFLOP"],
        ["disk for checkpoints", f"{cost.disk_bytes / 1e6:,.0f} MB"],
        ["workers", f"{config.train.workers}, each {'a GPU' if config.train.gpu else 'on CPUs'}"],
        ["writes to", f"{config.train.storage}/{config.name}"],
    ]
    screen.table(f"{config.name}: what training it comes to", ["what", "how much"], rows)
    resident = locations.rooted(config.data, config.data.resident)
    sources = [source.path for source in config.data.train] + [source.root for source in resident]
    sources = list(dict.fromkeys(sources))
    screen.say(f"reads {', '.join(sources) or 'nothing: data.train and data.resident are empty'}")
    # The machine that trains may be another one: what is not here is said, and nothing is refused.
    named = locations.of_recipe(config)
    named.pop("train.storage")
    named.pop("data.root", None)
    validated = locations.rooted(config.data, config.data.resident_validation)
    needed = [*sources, *(source.root for source in validated), *named.values()]
    missing = [place for place in dict.fromkeys(needed) if not _is_there(place)]
    if missing:
        screen.say(f"a training needs what is not on this machine: {', '.join(missing)}")
    return {
        **asdict(cost),
        "workers": config.train.workers,
        "gpu": config.train.gpu,
        "folder": f"{config.train.storage}/{config.name}",
        "reads": sources,
        "missing": missing,
    }


def _is_there(place: str) -> bool:
    """Whether a local path exists; of a URL that is believed."""
    return "://" in place or Path(place).expanduser().exists()


def describe(progress: "Progress", epochs: int, workers: int) -> str:
    """Put a progress report into one line."""
    return (
        f"epoch {progress.epoch + 1}/{epochs}  step {progress.step}/{progress.steps}  "
        f"{progress.samples_per_s * workers:.0f} samples/s  loss {progress.losses['loss']:.3f}  "
        f"data wait {progress.data_wait:.1%}  {progress.gflops * workers:.0f} GFLOP/s "
        f"({progress.mfu:.0%} of peak)  {screen.clock(progress.seconds_left)} left"
    )


def summarise(progress: "Progress", exits: tuple[int, ...]) -> str:
    """Put a finished epoch into one line: each exit's IoU and the decisioner's error."""
    losses = progress.losses
    said = f"epoch {progress.epoch + 1} done: loss {losses['loss']:.3f}"
    for depth in exits:
        iou, error = losses.get(f"exit{depth}/iou"), losses.get(f"exit{depth}/iou_error")
        said += f"  exit {depth}: IoU {iou:.3f}, its estimate off by {error:.3f}" if iou else ""
    return said


def report(metrics: Mapping[str, float], tracker: str, exits: tuple[int, ...]) -> None:
    """Print the last validation and where the tracker lies."""
    rows = [
        [
            f"{depth}",
            f"{metrics[f'val/exit{depth}/iou']:.3f}",
            f"{metrics[f'val/exit{depth}/iou_error']:.3f}",
        ]
        for depth in exits
    ]
    screen.table("validation pairs", ["exit after block", "IoU", "error of predicted IoU"], rows)
    screen.say(f"tracker: {tracker}")

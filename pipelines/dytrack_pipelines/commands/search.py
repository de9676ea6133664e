"""Search exit placements, recycling and distillation: ``dytrack search RECIPE``.

Hardware: ``search.max_concurrent`` CPUs or GPUs at a time. Each trial trains ``search.epochs``
epochs of the recipe. The result is a Pareto front of accuracy against cost, in MLflow with a
figure.
"""

from dytrack_pipelines import recipes
from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import Overrides, Recipe


def search(recipe: Recipe, overrides: Overrides = []) -> None:  # noqa: B006  (typer copies it)
    """Search exit placements and distillation weights on accuracy and cost at once."""
    import numpy as np

    from dytrack_platform.config import load, parse_override

    # Read and check the whole recipe before anything starts.
    config = load(recipes.find(recipe), dict(parse_override(text) for text in overrides))
    # Only now load what is heavy: a mistake is told at once.
    from dytrack_platform.evaluation.report.pareto import dominated
    from dytrack_platform.experiment.search.front import keep_front
    from dytrack_platform.experiment.search.search import search as run

    # Run the trials; a killed search goes on with those that are missing.
    screen.say(
        f"{config.name}: {config.search.trials} trials, {config.search.max_concurrent} at a time"
    )
    searched = run(config, screen.say)
    # Find the trials that no other beats on both goals.
    goals = np.array([[trial.iou, trial.gmacs] for trial in searched.trials])
    best = (~dominated(goals, ("max", "min"))).tolist()
    # Keep the front with the parent run: an image, a page and the numbers.
    files = keep_front(searched, best)
    # Show all trials.
    rows = [
        [
            f"{trial.name}{' *' if on_front else ''}",
            *map(_short, trial.changes.values()),
            f"{trial.iou:.3f}",
            f"{trial.gmacs:.4f}",
        ]
        for trial, on_front in zip(searched.trials, best, strict=True)
    ]
    columns = ["trial (* on the front)", *searched.trials[0].changes, "IoU", "GMACs"]
    screen.table("search", columns, rows)
    if searched.failed:
        screen.say(f"{searched.failed} trials failed; their errors are in {searched.folder}")
    for file in files:
        screen.say(f"front: {file}")


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

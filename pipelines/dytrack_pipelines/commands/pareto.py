"""Draw the fronts of several runs on one page: ``dytrack pareto RUN RUN``.

Runs are those of trainings, evaluations and searches, by their ids in MLflow; nothing else is
read. Takes seconds. Runs that measured the same on the same data share a picture.
"""

from pathlib import Path
from typing import Annotated

import typer

from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import AsJson


def pareto(
    runs: Annotated[list[str], typer.Argument(help="Runs in MLflow, by id.")],
    out: Annotated[Path, typer.Option(help="Folder for pareto.html and pareto.png.")] = Path(
        "pareto"
    ),
    as_json: AsJson = False,
) -> None:
    """Draw accuracy and cost of several runs on one page, from MLflow alone."""
    from dytrack_platform.experiment.runs import pareto as fronts
    from dytrack_platform.storage.outputs import check_folder

    check_folder("--out", out, (fronts.PAGE, *fronts.stills(len(runs))), (fronts.PAGE,))
    # Read what each run kept of its points.
    found = fronts.told_apart([fronts.find(run) for run in runs], runs)
    # Draw them, and say how much each covers.
    files = fronts.draw(out, found)
    rows = [
        [one.name, one.kind, f"{one.measure} on {one.data}", f"{one.hypervolume:.4f}"]
        for one in found
    ]
    screen.table("fronts", ["run", "kind", "what", "hypervolume"], rows)
    for file in files:
        screen.say(f"front: {file}")
    if as_json:
        fronts_of = [one.to_dict() for one in found]
        screen.json({"fronts": fronts_of, "files": [str(file) for file in files]})

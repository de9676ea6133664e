"""Measure a tracker on a benchmark at every operating point, beside other trackers.

    dytrack evaluate --model models:/dytrack@champion --dataset lasot --root /data/LaSOT \
        --split test --out runs/lasot --workers 8 --baseline fixed --baseline cv2:MIL

Hardware: one CPU a worker, or a share of a GPU with ``--device cuda``. Time: frames x points over
workers x frames per second; the variant ``test`` runs at some hundred frames/s on one core. Run it
again after an interruption: finished sequences are kept. Leaves ``summary.json``, ``report.html``,
``pareto.png``, ``rejects.jsonl`` and ``results/POINT/SEQ.txt`` in the folder given by ``--out``.
"""

from pathlib import Path
from typing import Annotated

import typer

from dytrack_pipelines.terminal.options import AsJson, Device, Exclude, Precision, Runtime, Threads


def evaluate(
    dataset: Annotated[str, typer.Option(help="Layout of the data: got10k, lasot, video, ...")],
    root: Annotated[str, typer.Option(help="Folder or URL that the dataset's owner published")],
    out: Annotated[Path, typer.Option(help="Folder for results and report")],
    split: Annotated[
        str | None, typer.Option(help="The dataset's split; its default where left out")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A tracker's folder, or models:/NAME@ALIAS")
    ] = None,
    point: Annotated[
        list[str] | None,
        typer.Option("--point", "--points", help="Stored point, full, or 0.6,0.8; all if none"),
    ] = None,
    tracker: Annotated[
        list[str] | None,
        typer.Option(
            help="Another tracker: static, cv2:MIL, cv2:Nano,backbone=FILE,neckhead=FILE, ..."
        ),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(help="fixed, random, cycle, oracle, static or cv2:NAME; fixed and static"),
    ] = None,
    exclude: Exclude = None,
    protocol: Annotated[
        str | None, typer.Option(help="Profile of success and precision; the dataset's by default")
    ] = None,
    states: Annotated[
        bool,
        typer.Option(
            help="Let our tracker say when its target is lost, and look for it; exits are then "
            "its choice too."
        ),
    ] = False,
    export: Annotated[
        str | None, typer.Option(help="Also write got10k, trackingnet, text or pytracking files")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=4096, help="Sequences at a time")] = 1,
    threads: Threads = 1,
    device: Device = "cpu",
    runtime: Runtime = None,
    precision: Precision = "auto",
    mlflow: Annotated[
        bool, typer.Option("--mlflow/--no-mlflow", help="Record it as a run of its own")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Evaluate a tracker: official scores, speed, exits, one HTML report."""
    from dytrack_pipelines.terminal import screen
    from dytrack_pipelines.terminal.progress import progress_line
    from dytrack_pipelines.terminal.scoring_input import leave_out
    from dytrack_pipelines.terminal.tables import show_points
    from dytrack_platform.datasets import readers
    from dytrack_platform.datasets.sequence import Fault
    from dytrack_platform.errors import AccessError, ResultError, StorageError
    from dytrack_platform.evaluation.tracking.exports import check_layout, export_points
    from dytrack_platform.experiment.evaluate import evaluate as evaluation
    from dytrack_platform.experiment.evaluate import recording
    from dytrack_platform.experiment.evaluate.runtime_config import RuntimeConfig
    from dytrack_platform.storage.outputs import check_folder

    check_folder("--out", out, evaluation.WRITTEN, evaluation.MARKS)
    if export is not None:
        check_layout(export)
    # Read the dataset: annotations now, images on the workers.
    faults: list[Fault] = []
    sequences = leave_out(readers.read(dataset, root, split, faults), exclude or (), dataset)
    # Say what is compared with what.
    standard = ("fixed", "static") if model else ()
    job = evaluation.Evaluation(
        dataset=dataset,
        out=out,
        model=model,
        points=tuple(point or ()),
        baselines=(*(standard if baseline is None else baseline), *(tracker or ())),
        protocol=protocol,
        states=states,
        workers=workers,
        runtime=RuntimeConfig(
            runtime=runtime or "torch", precision=precision, device=device, threads=threads
        ),
    )
    # What it is of is known beforehand, and whether MLflow answers.
    about = recording.subject(job, sequences, split) if mlflow else None
    # Track everything, score it, and write the report; what is reused, and why not, is logged.
    with screen.log_file(out / "evaluation.log"), screen.live_line() as line:
        line.show("evaluating: starting")
        summary = evaluation.evaluate(job, sequences, faults, progress_line(line))
    # Write what servers and other toolkits take.
    if export is not None:
        entries = summary["points"] or summary["baselines"]
        exports = export_points(out, export, [entry["name"] for entry in entries])
        screen.say(f"{export} files: {', '.join(str(path) for path in exports)}")
    # Show the points and where to look.
    show_points(summary)
    if summary["reused"]:
        log = out / "evaluation.log"
        screen.say(f"{summary['reused']} results were finished before and reused: see {log}")
    if summary["unusual"]:
        screen.say(f"{len(summary['unusual'])} unusual things, the first: {summary['unusual'][0]}")
    screen.say(f"report: {out / 'report.html'}")
    # Keep it as a run of its own.
    run = None
    if about is not None:
        try:
            run = recording.record(out, summary, about)
            screen.say(f"run: {run}")
        except (AccessError, StorageError) as error:
            screen.say(f"not recorded in MLflow: {error}; the results are in {out}")
    if as_json:
        screen.json({**summary, "folder": str(out), "run": run})
    # A mean over fewer sequences than there are is no score of the benchmark.
    if missing := evaluation.missing(summary):
        raise ResultError(missing)

"""The whole story on synthetic data: ``make demo``, or ``dytrack demo``.

Hardware: 2 CPU cores. Time: about 5 minutes. Expect a success AUC above 0.55 at the deepest exit
on synthetic sequences that the tracker has never seen, above a box that never moves and OpenCV's
MIL.
Run it again to continue where it stopped.
"""

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from dytrack_pipelines import recipes
from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.tables import exits_title


def demo(
    folder: Annotated[Path, typer.Option(help="Folder for everything that is made.")] = Path(
        "demo"
    ),
) -> None:
    """Make data, prepare, train, search, evaluate, publish and track: everything once, small."""
    from dytrack_pipelines.commands.evaluate import evaluate
    from dytrack_pipelines.commands.prepare import prepare
    from dytrack_pipelines.commands.publish import publish
    from dytrack_pipelines.commands.search import search
    from dytrack_pipelines.commands.track import track
    from dytrack_pipelines.commands.train import train
    from dytrack_platform.datasets.synthetic import make
    from dytrack_platform.experiment.cluster import session

    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{(folder / 'mlflow.db').absolute()}")
    made, clips = folder / "made", folder / "clips"
    changes = [f"data.train=[{{path: '{clips}'}}]", f"train.storage={folder / 'runs'}"]
    recipe = str(recipes.FOLDER / "demo.yaml")

    _step("1/9  make sequences with known truth")
    for split, count in (("train", 200), ("val", 12), ("test", 16)):
        make(made, difficulty(), split, count)
    with session.ray_session():
        _step("2/9  prepare clips with Ray Data")
        prepare("got10k", str(made), str(clips), split="train", search_size=128)
        _step("3/9  train a tracker with three exits with Ray Train")
        train(recipe, changes)
        _step("4/9  search its exits and thresholds, then a few trainings with Ray Tune")
        exits = "search.space={model.exits: {placements: {count: [1, 3]}}}"
        search(
            recipe,
            overrides=[*changes, exits],
            mode="post-hoc",
            model=str(folder / "runs" / "demo"),
            dataset="got10k",
            root=str(made),
            split="val",
        )
        # One worker a trial: two trials at a time use both cores, and start in no time.
        search(recipe, overrides=[*changes, "train.workers=1"])
        _step("5/9  choose when it goes deep: where an early exit's answer is ambiguous")
        model = str(folder / "runs" / "demo")
        choose_depth(model, made)
        _step("6/9  evaluate it on sequences it has never seen")
        results = folder / "evaluation"
        baselines = ["fixed", "random", "oracle", "static", "cv2:MIL"]
        evaluate(
            "got10k", str(made), results, split="test", model=model, baseline=baselines, workers=2
        )
        beside = folder / "evaluation-reference"
        evaluate(
            "got10k",
            str(made),
            beside,
            split="test",
            model="reference",
            point=["balanced"],
            baseline=["fixed", "random"],
            states=True,
            workers=2,
        )
    _step("7/9  publish it in MLflow's registry")
    publish(model, evaluation=results, promote=True)
    _step("8/9  follow a target through a video")
    video, box = film(made, folder / "video.mp4")
    boxes, drawn = folder / "boxes.csv", folder / "tracked.mp4"
    init = ",".join(f"{value:g}" for value in box)
    track(str(video), [init], model="models:/dytrack@champion", out=drawn, boxes=boxes)
    track(str(video), [init], out=folder / "tracked-reference.mp4")
    _step("9/9  what came of it")
    summary = json.loads((results / "summary.json").read_text())
    shipped = json.loads((beside / "summary.json").read_text())
    reference = [*shipped["points"], *shipped["baselines"]]
    for entry in reference:
        entry["name"] = f"reference, {entry['name']}"
    conclude(folder, summary, reference, time.monotonic() - began)


def choose_depth(model: str, made: Path) -> None:
    """Make the tracker's balanced point one of ambiguity, half way between the exits in cost."""
    from dytrack_model import checkpoint
    from dytrack_model.cost import exit_gmacs
    from dytrack_pipelines.commands.calibrate import calibrate

    costs = exit_gmacs(checkpoint.load(model).network)
    calibrate(
        model,
        "got10k",
        str(made),
        split="val",
        budget_gmacs=0.5 * (costs[0] + costs[-1]),
        rule="ambiguity",
        name="balanced",
    )


def difficulty() -> "Any":  # noqa: ANN401  (SynthConfig, which is imported when it is needed)
    """Return the synthetic sequences' difficulty: every challenge, none in most of them."""
    from dytrack_platform.datasets.synthetic import SynthConfig

    return SynthConfig(
        strength=0.7,
        distractors=0.25,
        occlusion=0.25,
        leaving_view=0.1,
        aspect=0.2,
        fast_motion=0.2,
    )


def film(made: Path, path: Path) -> tuple[Path, tuple[float, ...]]:
    """Turn the first test sequence into a video; returns it and the target's first box."""
    from dytrack_pipelines.media.video import VideoWriter
    from dytrack_platform.datasets import readers

    sequence = next(readers.read("got10k", str(made), "test"))
    with VideoWriter(path, 25.0) as writer:
        for frame in sequence.frames.iterate():
            if frame is not None:
                writer.write(frame)
    return path, tuple(float(value) for value in sequence.boxes_xywh[0])


def conclude(
    folder: Path, summary: dict[str, Any], reference: list[dict[str, Any]], seconds: float
) -> None:
    """Say in a few lines what was learnt and where to look.

    Args:
        folder: The demonstration's folder.
        summary: The evaluation of the tracker that it trained.
        reference: Points of the tracker that comes with dytrack, on the same sequences.
        seconds: How long it took.
    """
    rows = [
        [
            entry["name"],
            f"{entry['success_auc']:.3f}",
            "" if entry["gmacs"] is None else f"{entry['gmacs']:.4f}",
            f"{entry['fps']:.0f}",
            " ".join(f"{share:.0%}" for share in entry["exit_share"] or ()),
        ]
        for entry in (*summary["points"], *summary["baselines"], *reference)
    ]
    screen.table(
        f"{summary['sequences']} unseen sequences, protocol {summary['protocol']}",
        ["point or baseline", "success AUC", "GMACs", "frames/s", exits_title(summary)],
        rows,
    )
    screen.say(f"report        {folder / 'evaluation' / 'report.html'}")
    screen.say(f"Pareto front  {folder / 'runs' / 'demo-post-hoc' / 'front.html'}")
    screen.say(f"of trials     {folder / 'runs' / 'demo-search' / 'front.html'}")
    screen.say(f"video         {folder / 'tracked.mp4'}  (table: {folder / 'boxes.csv'})")
    store = f"sqlite:///{(folder / 'mlflow.db').absolute()}"
    screen.say(f"runs, models  MLFLOW_TRACKING_URI={store} dytrack ui")
    screen.say(f"took          {screen.clock(seconds)}")


def _step(text: str) -> None:
    screen.say(f"\n== {text}")

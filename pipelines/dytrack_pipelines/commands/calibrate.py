"""Choose thresholds: ``dytrack calibrate RUN --dataset got10k --root DIR --budget-ms 8``.

Takes the time of tracking the sequences nine times for a price of depth, which is what a budget
gets, and twice for thresholds, once through every exit. They must be held out:
neither trained on nor reported on. The new operating point goes into the tracker's folder, with
what it promised and what the tracker then really gave.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import AsJson, Device, Precision, Runtime, Threads

if TYPE_CHECKING:
    from dytrack_platform.experiment.evaluate.calibrate import Calibrated


def calibrate(
    model: Annotated[str, typer.Argument(help="A tracker's folder, or models:/NAME@ALIAS.")],
    dataset: Annotated[str, typer.Option(help="Layout of the sequences, such as got10k.")],
    root: Annotated[str, typer.Option(help="Folder or URL of the dataset.")],
    split: Annotated[str | None, typer.Option(help="A split that was not trained on.")] = None,
    budget_ms: Annotated[
        float | None, typer.Option(help="Largest mean milliseconds of a frame, here.")
    ] = None,
    budget_gmacs: Annotated[
        float | None, typer.Option(help="Largest mean GMACs of a frame.")
    ] = None,
    risk: Annotated[
        float | None, typer.Option(help="Largest mean loss of IoU against full depth.")
    ] = None,
    confidence: Annotated[float, typer.Option(help="How surely the risk is kept.")] = 0.9,
    hysteresis: Annotated[
        float, typer.Option(help="How much thresholds move towards the last frame's exit.")
    ] = 0.0,
    rule: Annotated[
        Literal["auto", "thresholds", "ambiguity", "drop", "gain", "rollouts"],
        typer.Option(
            help="What decides: thresholds on the predicted IoU, as in the paper; or a price of "
            "depth, compared with how ambiguous the exit's answer is (ambiguity), with what "
            "the predicted IoU fell (drop), or with what depth is expected to gain in a frame "
            "(gain) or in it and the next ones (rollouts). auto: ambiguity for a budget, "
            "thresholds for a risk and with hysteresis."
        ),
    ] = "auto",
    audit_every: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1_000_000,
            help="With a price: frames after which full depth is run anyhow; 15.",
        ),
    ] = None,
    narrow: Annotated[
        bool,
        typer.Option(
            "--narrow",
            help="With a price: look at the narrow search region while the target is certain and "
            "slow, where the tracker has one (model.narrow_size).",
        ),
    ] = False,
    name: Annotated[str, typer.Option(help="Name of the operating point.")] = "calibrated",
    out: Annotated[
        Path | None, typer.Option(help="Tracker to write; the given one where left out.")
    ] = None,
    threads: Threads = 1,
    device: Device = "cpu",
    runtime: Runtime = None,
    precision: Precision = "auto",
    as_json: AsJson = False,
) -> None:
    """Turn held-out sequences and a budget or a risk into an operating point, and try it."""
    import torch

    from dytrack_model import checkpoint
    from dytrack_model.depth_value import AUDIT_EVERY
    from dytrack_model.folders import SHIPPED
    from dytrack_model.policy import check_point_name
    from dytrack_platform.config.schema import ResidentSource
    from dytrack_platform.datasets import readers
    from dytrack_platform.datasets.sequence import Fault
    from dytrack_platform.errors import ConfigurationError
    from dytrack_platform.experiment.evaluate import calibrate as calibration
    from dytrack_platform.experiment.evaluate import value_rules
    from dytrack_platform.experiment.evaluate.closed_loops import Goal
    from dytrack_platform.experiment.evaluate.runtime_config import RuntimeConfig
    from dytrack_platform.experiment.registry import registry

    # Say what must be kept, and where the result goes.
    check_point_name(name)
    goal = Goal(milliseconds=budget_ms, gmacs=budget_gmacs, risk=risk, confidence=confidence)
    if rule == "auto":
        rule = "thresholds" if risk is not None or hysteresis else "ambiguity"
    value_rules.require_price(rule, audit_every, narrow=narrow)
    if out is None and (registry.is_remote(model) or model in SHIPPED):
        raise ConfigurationError(
            "out: a model in a registry or a store, or one that comes with dytrack, stays as it "
            "is; name a folder"
        )
    if out is not None:
        checkpoint.require_place(out)
    torch.set_num_threads(threads)
    runtime_config = RuntimeConfig(
        runtime=runtime or "torch", precision=precision, device=device, threads=threads
    )
    # Read the tracker and the sequences.
    saved = registry.load(model)
    value_rules.require_region(saved.network.config, narrow=narrow)
    faults: list[Fault] = []
    sequences = list(readers.read(dataset, root, split, faults))
    # Choose the thresholds or the price, and run the tracker with them.
    with screen.live_line() as line:
        line.show("reading the sequences")
        source = ResidentSource(dataset=dataset, root=root, split=split)
        by_value = value_rules.value_of(
            rule, saved.network, source, audit_every or AUDIT_EVERY, device, narrow=narrow
        )
        outcome = calibration.calibrate(
            saved,
            sequences,
            goal,
            name,
            runtime_config,
            hysteresis,
            lambda what, done, count: line.show(f"{what}: {done}/{count} sequences"),
            by_value,
        )
    # Keep the point in the tracker, with its record.
    points = {point.name: point for point in saved.points} | {name: outcome.point}
    notes = {**saved.notes}
    record = {**outcome.to_dict(), "rule": rule, "dataset": dataset, "split": split}
    notes["calibration"] = {**dict(notes.get("calibration", {})), name: record}
    # As it was kept before: small, and with its ranges.
    kept = notes.get("weights", "fp32")
    folder = checkpoint.save(
        out or registry.find(model), saved.network, [*points.values()], notes, weights=kept
    )
    if saved.ranges:
        checkpoint.save_ranges(folder, saved.ranges)
    show(outcome, saved.network.config.exits)
    if faults:
        screen.say(f"{len(faults)} faults in the data, the first: {faults[0].reason}")
    screen.say(f"operating point {name} is in {folder}")
    if as_json:
        screen.json({"folder": str(folder), "point": asdict(outcome.point), **record})


def show(outcome: "Calibrated", blocks: tuple[int, ...]) -> None:
    """Put what was promised beside what the tracker gave."""
    rows = [
        [
            title,
            f"{run.mean_iou:.3f}",
            f"{run.gmacs:.4f}",
            f"{run.milliseconds:.2f}",
            f"{run.regret:.3f}",
            f"{run.regret_bound:.3f}",
            " ".join(f"{share:.0%}" for share in run.shares),
        ]
        for title, run in (
            ("promised (recorded crops)", outcome.promised),
            ("got (closed loop)", outcome.got),
            ("full depth", outcome.full),
        )
        if run is not None
    ]
    after = " / ".join(map(str, blocks))
    columns = ["", "mean IoU", "GMACs", "ms", "regret", "its bound", f"exits after block {after}"]
    where = f"{outcome.runtime}, {outcome.precision}"
    title = f"{outcome.sequences} sequences, {outcome.frames} frames, {where}"
    screen.table(title, columns, rows)
    by_price = outcome.point.value is not None
    screen.say(outcome.point.rule if by_price else f"thresholds {outcome.point.rule}")
    scores = zip(outcome.auroc, outcome.calibration_error, strict=True)
    said = ", ".join(f"{auroc:.2f} / {error:.3f}" for auroc, error in scores)
    screen.say(f"predicted IoU after block {after}, AUROC / calibration error: {said}")
    if outcome.remark:
        screen.say(outcome.remark)

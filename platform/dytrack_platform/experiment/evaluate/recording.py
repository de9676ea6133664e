"""Record an evaluation in MLflow: a run of its own, with what it was of and what it gave."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dytrack_model import checkpoint
from dytrack_platform.datasets.sequence import VideoSequence
from dytrack_platform.experiment.evaluate.evaluate import Evaluation
from dytrack_platform.experiment.registry import registry
from dytrack_platform.experiment.runs import pareto, provenance, tracking
from dytrack_platform.experiment.runs.pareto import RunPoint, RunPoints
from dytrack_platform.storage import files


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What an evaluation was of, as tags."""

    tags: dict[str, str]
    name: str


def subject(job: Evaluation, sequences: Sequence[VideoSequence], split: str | None) -> Subject:
    """Describe an evaluation: model with its run, version and checksum, data, machine.

    Raises:
        ModelLookupError: The model reference leads to nothing.
    """
    tags = {
        "dataset": job.dataset,
        "split": split or "default",
        "manifest": manifest(sequences),
        "machine": f"{provenance.machine()}, {job.runtime}, {job.runtime.threads} threads",
        **provenance.code(),
    }
    if job.model is not None:
        folder = registry.find(job.model)
        record = files.read_json(str(folder.parent / "experiment.json")) or {}
        tags |= {"model": job.model, "model.checksum": checkpoint.fingerprint(folder)}
        if record.get("run_id"):
            tags["model.run"] = str(record["run_id"])
        if job.model.startswith("models:/"):
            tags["model.version"], trained = registry.version_of(job.model)
            if trained is not None:
                tags["model.run"] = trained
    return Subject(tags=tags, name=f"evaluate {job.dataset}")


def manifest(sequences: Sequence[VideoSequence]) -> str:
    """Digest the names and annotations of sequences, whatever their order."""
    whole = hashlib.sha256()
    for sequence in sorted(sequences, key=lambda one: one.name):
        whole.update(sequence.name.encode() + b"\0" + sequence.boxes_xywh.tobytes())
    return whole.hexdigest()[:16]


def points_of(summary: dict[str, Any], name: str, split: str, machine: str) -> RunPoints:
    """Return an evaluation's points in the form that all runs share."""
    rows = [(row, False) for row in summary["points"]]
    rows += [(row, True) for row in summary["baselines"]]
    return RunPoints(
        name=name,
        kind="evaluate",
        measure="success_auc",
        # Another part of a dataset, or another version of it, is no place to compare.
        data=f"{summary['dataset']} {split} ({summary['data']})",
        protocol=summary["protocol"],
        machine=machine,
        points=tuple(
            RunPoint(
                name=row["name"],
                accuracy=row["success_auc"],
                gmacs=row["gmacs"],
                ms=row["ms_p50"],
                baseline=beside,
            )
            for row, beside in rows
            if row["success_auc"] is not None
        ),
    )


def record(out: Path, summary: dict[str, Any], about: Subject) -> str:
    """Keep a finished evaluation in a run of kind ``evaluate``; returns its id.

    Args:
        out: The evaluation's folder.
        summary: What ``summary.json`` holds.
        about: What it was of.

    Raises:
        AccessError: MLflow does not answer, or refuses who asks; the results stay in ``out``.
        StorageError: It fails; the results stay there too.
    """
    tags = {**about.tags, "protocol": summary["protocol"]}
    if summary["rejected"]:
        tags["rejected"] = ", ".join(summary["rejected"])[:5000]
    own = points_of(summary, about.name, tags["split"], tags["machine"])
    # The evaluation's own still image has milliseconds beside GMACs.
    written = [*pareto.write(out, own, still=False), out / pareto.STILL]
    with tracking.run(about.name, kind="evaluate") as run:
        for key, value in tags.items():
            run.tag(key, value)
        run.metrics(own.metrics(), step=0)
        for path in (out / "summary.json", out / "report.html", *written):
            run.file(path)
    return run.run_id

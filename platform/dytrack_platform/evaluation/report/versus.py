"""What a comparison with other trackers found: one table, one picture, one page."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from dytrack_platform.confidence import auroc
from dytrack_platform.datasets.io.text import usable_boxes
from dytrack_platform.datasets.sequence import VideoSequence
from dytrack_platform.evaluation.peers.contest import Outcome
from dytrack_platform.evaluation.peers.process import NOWHERE
from dytrack_platform.evaluation.report.comparison import interval
from dytrack_platform.evaluation.report.figures import pareto_figure, write_still
from dytrack_platform.evaluation.report.page import (
    DASH,
    Section,
    number,
    table,
    unordered,
    write_page,
)
from dytrack_platform.evaluation.report.summary import PointSummary, annotate, summarise_point
from dytrack_platform.evaluation.scoring.dataset_scores import plain_number
from dytrack_platform.evaluation.scoring.ground_truth import Prepared
from dytrack_platform.evaluation.scoring.metrics import columns, overlaps
from dytrack_platform.evaluation.scoring.profiles import Profile

Floats = NDArray[np.float64]
_SUCCESS = 0.5  # IoU above which a frame counts as found, for the AUROC


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """Under which conditions the trackers ran."""

    threads: int
    machine: str
    cores: int
    load: float | None
    """Mean number of runnable processes over the minute before; None where unknown."""
    date: str
    remark: str
    """What has to be said beside every such table."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The comparison in numbers."""

    dataset: str
    profile: Profile | None
    """Rules of AUC and precision; None where there is no truth."""
    setting: Setting
    sequences: int
    frames: int
    rows: list[dict[str, Any]]
    """One for each tracker that took part, ours first."""
    absent: dict[str, str]
    """Trackers that took no part, and why."""
    best_peer: str | None
    agreement: dict[str, dict[str, float | None]]
    """Mean IoU of the boxes of two trackers, by their titles."""
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "dataset": self.dataset,
            "protocol": None if self.profile is None else self.profile.name,
            "threads": self.setting.threads,
            "machine": self.setting.machine,
            "cores": self.setting.cores,
            "load": self.setting.load,
            "date": self.setting.date,
            "remark": self.setting.remark,
            "sequences": self.sequences,
            "frames": self.frames,
            "best_peer": self.best_peer,
            "trackers": self.rows,
            "took_no_part": self.absent,
            "agreement": self.agreement,
            "notes": self.notes,
        }


def has_truth(sequence: VideoSequence) -> bool:
    """Whether a sequence has a box that can be scored, besides the first."""
    usable = usable_boxes(sequence.boxes_xywh[1:])
    if sequence.flagged is not None:
        usable &= ~sequence.flagged[1:]
    return bool(usable.any())


def refuse_unscorable(sequences: Sequence[VideoSequence], profile: Profile) -> None:
    """Raise before any time is spent what scoring would raise in the end.

    Raises:
        ResultError: The profile's toolkit would stop on an annotation.
    """
    for sequence in sequences:
        if has_truth(sequence):
            Prepared(profile, annotate(sequence))


def judge(
    dataset: str,
    outcomes: Sequence[Outcome],
    sequences: Sequence[VideoSequence],
    profile: Profile,
    setting: Setting,
) -> Verdict:
    """Score what trackers did.

    Args:
        dataset: Name for the title.
        outcomes: From :func:`~dytrack_platform.evaluation.peers.contest.hold`.
        sequences: That they followed; those without truth count for speed and agreement only.
        profile: The rules of AUC and precision.
        setting: Under which conditions they ran.
    """
    ran = sorted((o for o in outcomes if not o.absent), key=lambda o: not o.entry.ours)
    known = [sequence for sequence in sequences if has_truth(sequence)]
    rows, ious = [], {}
    for outcome in ran:
        row = _row(outcome, sequences)
        if known:
            summary = _summary(outcome, known, profile)
            ious[row["name"]] = np.array([_mean(summary.overlaps[s.name][1:]) for s in known])
            row |= _accuracy(summary, ious[row["name"]], known)
        rows.append(row)
    peers = [row for row in rows if not row["ours"]]
    best = max(peers, key=lambda row: row["iou"])["name"] if known and peers else None
    for row in rows:
        row["ratio"] = _ratio(row["ms_p50"], peers[0]["ms_p50"] if peers else None)
        row["difference"] = None
        if best is not None and row["name"] != best and len(known) > 1:
            found = interval(ious[row["name"]] - ious[best])
            row["difference"] = {"value": found.value, "low": found.low, "high": found.high}
    agreement = _agreement(ran, sequences)
    for row in rows:
        others = [v for v in agreement[row["title"]].values() if v is not None]
        row["agreement"] = plain_number(float(np.mean(others)) if others else math.nan)
    return Verdict(
        dataset=dataset,
        profile=profile if known else None,
        setting=setting,
        sequences=len(sequences),
        frames=sum(len(sequence) for sequence in sequences),
        rows=rows,
        absent={str(o.entry): o.absent for o in outcomes if o.absent},
        best_peer=best,
        agreement=agreement,
        notes=_notes(ran, sequences, known),
    )


def _row(outcome: Outcome, sequences: Sequence[VideoSequence]) -> dict[str, Any]:
    """What is known of a tracker without truth."""
    runs = [outcome.runs[sequence.name] for sequence in sequences]
    times = np.concatenate([run.result.times_s[1:] for run in runs]) * 1e3
    lost = np.concatenate([run.lost[1:] for run in runs])
    return {
        "name": outcome.entry.name,
        "title": str(outcome.entry),
        "ours": outcome.entry.ours,
        "about": outcome.about,
        "ms_p50": plain_number(_median(times[times > 0])),
        "lost": plain_number(_mean(lost)),
        "failed": outcome.problems,
    }


def _summary(outcome: Outcome, known: Sequence[VideoSequence], profile: Profile) -> PointSummary:
    results = []
    for sequence in known:
        result = outcome.runs[sequence.name].result
        if 0 in result.image_size:  # it failed before it saw a frame
            height, width = sequence.frames.read(0).shape[:2]
            result = replace(result, image_size=(width, height))
        results.append(result)
    return summarise_point(
        outcome.entry.name, results, {s.name: annotate(s) for s in known}, profile
    )


def _accuracy(
    summary: PointSummary, ious: Floats, known: Sequence[VideoSequence]
) -> dict[str, Any]:
    overall = summary.score.overall
    scores = np.concatenate([summary.results[s.name].scores[1:] for s in known])
    true = np.concatenate([summary.overlaps[s.name][1:] for s in known])
    both = ~np.isnan(scores) & np.isfinite(true)
    return {
        "iou": float(ious.mean()),
        "success_auc": plain_number(overall.success_auc),
        "precision20": plain_number(overall.precision20),
        "auroc": plain_number(auroc(scores[both], true[both] > _SUCCESS)),
        "exit_share": summary.exit_share,
        "iou_by_sequence": {s.name: float(v) for s, v in zip(known, ious, strict=True)},
    }


def _agreement(
    ran: Sequence[Outcome], sequences: Sequence[VideoSequence]
) -> dict[str, dict[str, float | None]]:
    """Mean over sequences of the mean IoU of two trackers' boxes."""

    def pair(one: Outcome, other: Outcome) -> float | None:
        means = []
        for sequence in sequences:
            a = one.runs[sequence.name].result.boxes_xywh[1:]
            b = other.runs[sequence.name].result.boxes_xywh[1:]
            shared = overlaps(columns(a), columns(b), "guarded")
            # Two trackers that both failed agree in nothing.
            means.append(_mean(np.where((a == np.array(NOWHERE)).all(axis=1), 0.0, shared)))
        return plain_number(_mean(np.array(means)))

    return {
        str(one.entry): {str(other.entry): pair(one, other) for other in ran if other is not one}
        for one in ran
    }


def _notes(
    ran: Sequence[Outcome], sequences: Sequence[VideoSequence], known: Sequence[VideoSequence]
) -> list[str]:
    notes = []
    for outcome in ran:
        problems = outcome.problems
        if problems:
            name, reason = next(iter(problems.items()))
            notes.append(
                f"{outcome.entry}: failed on {len(problems)} of {len(sequences)} sequences, and "
                f"missed the frames after that; {name}: {reason}"
            )
    if known and len(known) < len(sequences):
        bare = [s.name for s in sequences if not has_truth(s)]
        notes.append(f"without truth, so not scored: {', '.join(bare)}")
    return notes


def title(found: Verdict) -> str:
    """Say what was compared, by which rules, and on what machine."""
    setting = found.setting
    rules = "no truth" if found.profile is None else f"AUC and precision by {found.profile.name}"
    load = "" if setting.load is None else f", load {setting.load:.1f} at the start"
    return (
        f"{found.dataset}: {found.sequences} sequences, {found.frames} frames, {rules}; "
        f"{setting.threads} thread{'s' if setting.threads > 1 else ''} of {setting.machine} "
        f"({setting.cores} cores{load}), {setting.date}"
    )


def table_rows(found: Verdict) -> tuple[list[str], list[list[str]]]:
    """Return the table: names of the columns, and cells of the rows."""
    peers = [row for row in found.rows if not row["ours"]]
    speed = ["ms", f"x {peers[0]['name']}"] if peers else ["ms"]
    numbers: list[tuple[str, int]]
    if found.profile is None:
        header = ["tracker", "agreement", "called lost", *speed]
        numbers = [("agreement", 3), ("lost", 3)]
    else:
        against = [f"IoU - {found.best_peer}", "95 %"] if found.best_peer else []
        header = ["tracker", "mean IoU", "AUC", "P", "AUROC", "called lost", *speed, *against]
        numbers = [("iou", 3), ("success_auc", 3), ("precision20", 3), ("auroc", 3), ("lost", 3)]
    numbers += [("ms_p50", 2), ("ratio", 2)][: len(speed)]
    rows = []
    for row in found.rows:
        mark = "*" if row["failed"] else ""
        cells = [row["title"] + mark, *(number(row[key], digits) for key, digits in numbers)]
        if found.best_peer is not None:
            cells += _difference(row["difference"])
        rows.append(cells)
    return header, rows


def _difference(found: Mapping[str, float] | None) -> list[str]:
    if found is None:
        return [DASH, DASH]
    return [f"{found['value']:+.3f}", f"{found['low']:+.3f} to {found['high']:+.3f}"]


def remarks(found: Verdict) -> list[str]:
    """List what stands under the table."""
    lines = [f"{name}: {reason}" for name, reason in found.absent.items()]
    lines += [f"* {note}" if "failed on" in note else note for note in found.notes]
    if any("pre-release" in row["title"] for row in found.rows):
        lines.append(
            "pre-release: not the published weights; published scores do not hold for these"
        )
    ran_on = sorted({row["about"] for row in found.rows if row["ours"]})
    if ran_on:
        lines.append(f"ours ran on {'; '.join(ran_on)}")
    return [*lines, found.setting.remark]


WRITTEN = ("versus.html", "versus.png")
"""What :func:`write_versus` writes into its folder."""


def write_versus(folder: Path, found: Verdict) -> Path:
    """Write ``versus.html``, and with truth ``versus.png``.

    Returns:
        The page.

    Raises:
        StorageError: The folder cannot be written.
    """
    titled = [row | {"name": row["title"]} for row in found.rows]
    ours = [r for r in titled if r["ours"] and not r["name"].startswith("exit-")]
    rest = [r for r in titled if r not in ours]
    header, rows = table_rows(found)
    figures = {}
    if found.profile is not None:
        figures["pareto"] = pareto_figure(ours, rest, "ms_p50", accuracy="iou")
        write_still(folder / "versus.png", ours, rest, costs=("ms_p50",), accuracy="iou")
    sections = [
        Section(
            title="Trackers",
            body=table(header, rows) + unordered(remarks(found), empty=""),
            figures=figures,
            note="ms: median of a frame, decoding left out. AUROC: of the tracker's own score, for "
            f"IoU > {_SUCCESS:g}. A dash: the tracker does not say.",
        ),
        Section(title="Agreement", body=_agreement_table(found), note="Mean IoU of two trackers."),
    ]
    if found.profile is not None:
        sections.append(Section(title="Sequences", body=_sequence_table(found), note="Mean IoU."))
    return write_page(
        folder / "versus.html",
        title=f"{found.dataset}: our tracker and what people use today",
        lead=f"{title(found)}.",
        sections=sections,
        data=found.to_dict(),
    )


def _agreement_table(found: Verdict) -> Markup:
    names = list(found.agreement)
    rows = [
        [name, *(number(found.agreement[name].get(other)) for other in names)] for name in names
    ]
    return table(["tracker", *names], rows)


def _sequence_table(found: Verdict) -> Markup:
    names = list(found.rows[0]["iou_by_sequence"]) if found.rows else []
    rows = [[name, *(number(r["iou_by_sequence"][name]) for r in found.rows)] for name in names]
    return table(["sequence", *(row["title"] for row in found.rows)], rows)


def _ratio(ms: float | None, first: float | None) -> float | None:
    return None if ms is None or not first else ms / first


def _mean(values: Floats) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else math.nan


def _median(values: Floats) -> float:
    return float(np.median(values)) if len(values) else math.nan

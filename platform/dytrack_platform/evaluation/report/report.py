"""The report of an evaluation: everything ``summary.json`` says, to look at."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dytrack_platform.evaluation.report.figures import (
    calibration_figure,
    curve_figure,
    pareto_figure,
    radar_figure,
    share_figure,
    write_still,
)
from dytrack_platform.evaluation.report.filmstrip import Film
from dytrack_platform.evaluation.report.page import (
    DASH,
    Figure,
    Section,
    colour,
    number,
    part,
    table,
    unordered,
    write_page,
)
from dytrack_platform.evaluation.report.summary import PointSummary
from dytrack_platform.evaluation.scoring.profiles import Profile

_COLUMNS = (
    ("success_auc", "AUC", 3),
    ("precision20", "precision", 3),
    ("norm_precision20", "norm. prec.", 3),
    ("ao", "AO", 3),
    ("sr50", "SR 0.5", 3),
    ("fps", "fps", 1),
    ("ms_p50", "ms p50", 2),
    ("gmacs", "GMACs", 3),
    ("auroc", "AUROC", 3),
    ("calibration_error", "calib. error", 3),
)
_BALANCED = ("balanced_accuracy", "balanced_accuracy_doubtful")
_TIMES = (
    ("ms_p50", "p50"),
    ("ms_p95", "p95"),
    ("ms_p99", "p99"),
    ("ms_network", "network"),
    ("ms_crop", "crop and rest"),
    ("ms_start", "start"),
    ("ms_decode", "decode"),
)
_RATES = (
    ("frames-over-time", "fps: frames / time"),
    ("reciprocals", "fps: mean of 1 / t"),
    ("pooled-reciprocals", "fps: the same, pooled"),
)


def write_report(
    out: Path,
    *,
    summary: Mapping[str, Any],
    profile: Profile,
    points: Sequence[PointSummary],
    baselines: Sequence[PointSummary] = (),
    films: Mapping[str, Film] | None = None,
) -> Path:
    """Write ``report.html`` and ``pareto.png``.

    Args:
        out: The folder of the evaluation.
        summary: What :func:`~dytrack_platform.evaluation.report.summary.summary_json` gave.
        profile: The rules behind the scores.
        points: Operating points; the first table and the time lines are about them.
        baselines: Everything they are compared with.
        films: Images of sequences by name, for those that have them.

    Returns:
        The HTML file.

    Raises:
        StorageError: A file cannot be written.
    """
    shown, others, blocks = summary["points"], summary["baselines"], summary["exit_blocks"]
    write_still(out / "pareto.png", shown, others)
    sections = [
        _points_section(shown, others, blocks),
        Section(
            title="Accuracy and cost",
            figures={
                "pareto-gmacs": pareto_figure(shown, others, "gmacs"),
                "pareto-ms": pareto_figure(shown, others, "ms_p50"),
            },
            note="Up and left is better. The dotted line joins the operating points that no other "
            "one beats; the other marks are baselines and other trackers on the same frames.",
        ),
        _curves_section(profile, [*shown, *others]),
        _speed_section([*shown, *others]),
        *_exit_sections(shown, blocks),
        *_calibration_section([*points, *baselines]),
        *_states_section([*points, *baselines]),
        *_attribute_section([*shown, *others]),
        _sequences_section(shown or others, films or {}, blocks),
        _unusual_section(summary["unusual"]),
        _rules_section(profile),
    ]
    return write_page(
        out / "report.html",
        title=f"{summary['dataset']}: evaluation by {summary['protocol']}",
        lead=f"{summary['sequences']} sequences, {summary['frames']} frames. Success, precision "
        f"and normalised precision follow {profile.source}{_reason(summary)}; AO and SR follow "
        "got10k 0.1.3.",
        sections=sections,
        data=summary,
    )


def _three(value: float | str | None) -> str:
    """Show a number with three digits; infinity and the like as they are."""
    return f"{value:.3g}" if isinstance(value, float | int) else str(value)


def _reason(summary: Mapping[str, Any]) -> str:
    """Say why this profile, where the dataset's default was taken."""
    return f" ({summary['protocol_reason']})" if "protocol_reason" in summary else ""


def _points_section(
    points: Sequence[Mapping[str, Any]],
    others: Sequence[Mapping[str, Any]],
    blocks: Sequence[int],
) -> Section:
    header = ["name", "thresholds or price", *(title for _, title, _ in _COLUMNS)]
    header.append(f"exits after block {' / '.join(map(str, blocks))}" if blocks else "exits")
    rows = []
    for point in (*points, *others):
        rows.append(
            [
                point["name"],
                _rule(point),
                *(number(point[key], digits) for key, _, digits in _COLUMNS),
                " / ".join(f"{share:.0%}" for share in point["exit_share"]) or DASH,
            ]
        )
    return Section(
        title="Operating points and baselines",
        body=table(header, rows, identifier="points"),
        note="Scores lie in [0, 1]. Times are the tracker's own, without decoding.",
    )


def _rule(point: Mapping[str, Any]) -> str:
    """Say what a point compares with: a price, thresholds, or nothing."""
    if point.get("price") is not None:
        return f"price {_three(point['price'])}"
    thresholds = point["thresholds"]
    return DASH if thresholds is None else ", ".join(_three(t) for t in thresholds)


def _speed_section(points: Sequence[Mapping[str, Any]]) -> Section:
    header = ["name", *(f"ms {title}" for _, title in _TIMES), *(title for _, title in _RATES)]
    rows = [
        [
            point["name"],
            *(number(point[key], 2) for key, _ in _TIMES),
            *(number(point["fps_by_rule"][rule], 1) for rule, _ in _RATES),
        ]
        for point in points
    ]
    return Section(
        title="Speed",
        body=table(header, rows, identifier="speed"),
        note="Measured per frame after a warm-up, the device's work awaited. Percentiles, network, "
        "crop and rest are of the steps; start is the first frame's share. Frames per second count "
        "the start, as pytracking and OTB (frames over time, by sequence), got10k's OTB and its "
        "GOT-10k experiment (mean of reciprocals, by sequence and pooled) do.",
    )


def _curves_section(profile: Profile, points: Sequence[Mapping[str, Any]]) -> Section:
    figures: dict[str, Figure] = {}
    for key, score, title, axis, thresholds in (
        ("success_curve", "success_auc", "Success", "overlap", profile.overlap_thresholds),
        ("precision_curve", "precision20", "Precision", "pixels", profile.pixel_thresholds),
        (
            "norm_precision_curve",
            "norm_precision20",
            "Normalised precision",
            "error over target size",
            profile.scaled_thresholds,
        ),
    ):
        known = [p for p in points if p[key] is not None]
        figures[key.replace("_", "-")] = curve_figure(
            title,
            f"{axis} threshold",
            thresholds.tolist(),
            {p["name"]: p[key] for p in known},
            {p["name"]: p[score] for p in known},
        )
    return Section(title="Success and precision", figures=figures)


def _exit_sections(points: Sequence[Mapping[str, Any]], blocks: Sequence[int]) -> list[Section]:
    figures = {}
    for k, point in enumerate(points):
        if len(point["exit_share"]) == 0:
            continue
        rows = {name: row["exit_share"] for name, row in point["per_sequence"].items()}
        figures[f"exits-{k}"] = share_figure(f"{point['name']}: by sequence", rows, blocks)
        parts = {name: row["exit_share"] for name, row in point["attributes"].items()}
        if parts:
            figures[f"exits-by-attribute-{k}"] = share_figure(
                f"{point['name']}: by attribute", parts, blocks
            )
    note = "After which block the box was given, as a share of the frames."
    return [Section(title="Exits", figures=figures, note=note)] if figures else []


def _calibration_section(points: Sequence[PointSummary]) -> list[Section]:
    known = {p.name: p.calibration for p in points}
    known = {name: calibration for name, calibration in known.items() if calibration.frames}
    if not known:
        return []
    rows = [
        [
            name,
            str(c.frames),
            number(None if c.auroc != c.auroc else c.auroc),
            number(c.expected_error),
        ]
        for name, c in known.items()
    ]
    return [
        Section(
            title="Predicted IoU",
            body=table(["name", "frames", "AUROC (IoU > 0.5)", "calibration error"], rows),
            figures={"calibration": calibration_figure(known)},
            note="Marks on the diagonal mean that the tracker knows how good its box is; the "
            "area of a mark is its share of the frames.",
        )
    ]


def _states_section(points: Sequence[PointSummary]) -> list[Section]:
    known = {p.name: p.states for p in points if p.states is not None}
    if not known:
        return []
    names = list(dict.fromkeys(state for score in known.values() for state in score.names))
    rows = []
    for name, score in known.items():
        for truth, counts in (("there", score.present), ("absent", score.absent)):
            shown = [str(counts.get(state, 0)) for state in names]
            found = score.to_dict() if truth == "absent" else {}
            last = [number(found[key]) if found else "" for key in _BALANCED]
            rows.append([name, truth, *shown, *last])
    header = ["name", "the target is", *names, "lost", "lost or doubtful"]
    return [
        Section(
            title="Whether the target is there",
            body=table(header, rows, identifier="states"),
            note="Frames by what the annotation says and by the tracker's state. The last two "
            "columns are balanced accuracies: the mean of the shares of absent frames that were "
            "called lost (or lost or doubtful) and of other frames that were not.",
        )
    ]


def _attribute_section(points: Sequence[Mapping[str, Any]]) -> list[Section]:
    names = list(dict.fromkeys(name for point in points for name in point["attributes"]))
    if not names:
        return []
    by_point = {
        point["name"]: {
            name: point["attributes"][name]["success_auc"] or 0.0
            for name in names
            if name in point["attributes"]
        }
        for point in points
    }
    sizes = {name: row["sequences"] for p in points for name, row in p["attributes"].items()}
    rows = [
        [name, str(sizes[name]), *(number(by_point[p["name"]].get(name)) for p in points)]
        for name in names
    ]
    header = ["attribute", "sequences", *(str(p["name"]) for p in points)]
    figures = {"attributes": radar_figure(by_point)} if len(names) > 2 else {}
    return [Section(title="Attributes", body=table(header, rows), figures=figures)]


def _sequences_section(
    points: Sequence[Mapping[str, Any]], films: Mapping[str, Film], blocks: Sequence[int]
) -> Section:
    """Show one row per sequence, those on which the last point is worst first."""
    reference = points[-1]
    order = sorted(
        reference["per_sequence"],
        key=lambda name: reference["per_sequence"][name]["success_auc"] or 0.0,
    )
    header = ["sequence", "frames", *(f"AUC {point['name']}" for point in points)]
    header += [f"AO {reference['name']}", f"fps {reference['name']}"]
    rows = []
    for name in order:
        row = reference["per_sequence"][name]
        scores = [point["per_sequence"].get(name, {}).get("success_auc") for point in points]
        rows.append(
            [
                part("link", f"results/{reference['name']}/{name}.txt", name),
                str(row["frames"]),
                *(number(score) for score in scores),
                number(row["mean_overlap"]),
                number(row["fps"], 1),
            ]
        )
    shown = [films[name] for name in order if name in films]
    strips = Markup("").join(part("film", film, k == 0) for k, film in enumerate(shown))
    return Section(
        title="Sequences, worst first",
        body=table(header, rows, identifier="sequences") + (_key(blocks) + strips if shown else ""),
        note=f"Ordered by the success AUC of {reference['name']}.",
    )


def _key(blocks: Sequence[int]) -> Markup:
    """Say which colour stands for which exit in the films."""
    return part("colour_key", {block: colour(k) for k, block in enumerate(blocks)})


def _unusual_section(lines: Sequence[str]) -> Section:
    body = unordered(lines, empty="Nothing: every annotation and result was whole.")
    return Section(title="What was unusual", body=body)


def _rules_section(profile: Profile) -> Section:
    rows = [
        [field.name, str(getattr(profile, field.name))]
        for field in fields(profile)
        if field.name not in ("name", "source")
    ]
    return Section(
        title=f"The rules of {profile.name}",
        body=table(["rule", "value"], rows),
        note=f"Source: {profile.source}.",
    )

"""The page of a search, made from what it wrote down: MLflow's copies give the same page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dytrack_platform.config.search import ACCURACY
from dytrack_platform.evaluation.report.figures import pareto_figure, write_still
from dytrack_platform.evaluation.report.page import Figure, Section, number, table, write_page
from dytrack_platform.experiment.search.front.members import trial_name

PAGE, STILL = "front.html", "front.png"

Row = Mapping[str, Any]


def write(
    folder: Path,
    rows: Sequence[Row],
    details: Mapping[str, Any],
    record: Mapping[str, Any],
    links: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write ``front.html`` and ``front.png``.

    Args:
        folder: Where to.
        rows: What ``front.json`` holds.
        details: What ``details.json`` holds.
        record: What ``search.json`` holds.
        links: Address in MLflow of each trial's run, by the run's name; a click leads there.

    Raises:
        StorageError: A file cannot be written.
    """
    links = links or {}
    points = [_point(row, details, links) for row in rows]
    beside = _beside(rows, details)
    costs = [name for name in details["objectives"] if name != ACCURACY]
    figures: dict[str, Figure] = {}
    for cost in costs:
        figures[f"front-{cost}"] = pareto_figure(
            points, beside, cost, accuracy=ACCURACY, kind="members"
        )
    write_still(
        folder / STILL, points, beside, costs=tuple(costs), accuracy=ACCURACY, kind="members"
    )
    sections = [
        Section(
            title="Pareto front",
            figures=figures,
            note="Members as promised on sequences that no threshold was chosen on, beside what "
            "looks at nothing (random exits and a fixed cycle at the same shares, exits alone), "
            "the bound, and members as measured in closed loop.",
        ),
        Section(
            title="Members",
            body=_members(rows, details),
            note="Promised and measured stand side by side. One sequence is one sample: a member "
            "is undecided where the 95 % interval of its difference to a cheaper one reaches 0.",
        ),
        Section(title="Beside them", body=_baselines(details)),
    ]
    trials = record["trials"]
    if trials:
        sections += _trial_sections(trials, details)
    write_page(
        folder / PAGE,
        title=f"{details['name']}: a search in mode {details['mode']}",
        lead=_lead(rows, details),
        sections=sections,
        data={"front": list(rows), "details": dict(details), "record": dict(record)},
    )
    return [folder / PAGE, folder / STILL]


def _lead(rows: Sequence[Row], details: Mapping[str, Any]) -> str:
    stated = ", ".join(
        f"{name} {value:.4g}"
        for name, value in zip(details["objectives"], details["reference"], strict=True)
    )
    machines = sorted({one["machine"] for one in details["latency"]})
    how = sorted({f"{o['runtime']} {o['precision']}" for o in details["latency"]})
    threads = sorted({o["threads"] for o in details["latency"]})
    return (
        f"{sum(row['on_front'] for row in rows)} members on the front, knee point "
        f"{details['knee']}; hypervolume {details['hypervolume']:.4f} against {stated}. "
        f"{details['tried']} settings scored on {details['sequences']} sequences. Milliseconds of "
        f"{'; '.join(machines)}, {', '.join(how)}, {', '.join(map(str, threads))} threads."
    )


def _point(row: Row, details: Mapping[str, Any], links: Mapping[str, str]) -> dict[str, Any]:
    own = details["members"][row["name"]]
    trial = own["trial"]
    return {
        "name": label(row),
        ACCURACY: row["iou"],
        "gmacs": row["gmacs"],
        "ms": row["ms"],
        "params": own["params"],
        "url": None if trial is None else links.get(trial_name(trial)),
    }


def label(row: Row) -> str:
    """Name a member by its number and its exits: ``03: 2-6-12``."""
    return f"{row['name']}: {'-'.join(map(str, row['exits']))}"


def _beside(rows: Sequence[Row], details: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = [{"name": name, **one["values"]} for name, one in details["baselines"].items()]
    found += [
        {"name": f"measured {row['name']}", **row["closed_loop"]}
        for row in rows
        if row["closed_loop"] is not None
    ]
    return found


def _members(rows: Sequence[Row], details: Mapping[str, Any]) -> Any:  # noqa: ANN401  (Markup)
    header = ["member", "on front", "exits", "shares", "IoU", "measured", "AUC", "GMACs"]
    header += ["measured GMACs", "ms", "thresholds", "undecided"]
    cells = []
    for row in rows:
        own, loop = details["members"][row["name"]], row["closed_loop"] or {}
        cheaper = details["undecided"].get(row["name"])
        said = ""
        if cheaper is not None:
            said = (
                f"{cheaper['difference']:+.3f} ({cheaper['low']:+.3f} to {cheaper['high']:+.3f}) "
                f"to {cheaper['cheaper']}"
            )
        limits = [t if isinstance(t, str) else f"{t:.3f}" for t in row["policy"]["thresholds"]]
        cells.append(
            [
                row["name"] + (" (fitted again)" if own["refitted"] else ""),
                "yes" if row["on_front"] else "no",
                "-".join(map(str, row["exits"])),
                " / ".join(f"{share:.0%}" for share in own["shares"]),
                number(row["iou"]),
                number(loop.get("iou")),
                number(loop.get("success_auc")),
                number(row["gmacs"], 4),
                number(loop.get("gmacs"), 4),
                number(row["ms"], 2),
                ", ".join(limits),
                said,
            ]
        )
    return table(header, cells, identifier="members")


def _baselines(details: Mapping[str, Any]) -> Any:  # noqa: ANN401  (Markup)
    cells = []
    for name, one in details["baselines"].items():
        values = one["values"]
        cells.append([name, "promised", number(values["iou"]), "", number(values["gmacs"], 4)])
    for name, one in details["measured_baselines"].items():
        values = one["values"]
        cells.append(
            [
                name,
                "closed loop",
                number(values["iou"]),
                number(one["success_auc"]),
                number(values["gmacs"], 4),
            ]
        )
    return table(["rule", "where", "IoU", "AUC", "GMACs"], cells, identifier="beside")


def _trial_sections(
    trials: Sequence[Mapping[str, Any]], details: Mapping[str, Any]
) -> list[Section]:
    keys = sorted({key for trial in trials for key in trial["changes"]})
    header = ["trial", "outcome", "epochs", "hypervolume", *keys, "seconds", "MB", "reason"]
    cells = []
    for trial in trials:
        last = trial["reports"][-1] if trial["reports"] else {}
        cells.append(
            [
                trial_name(trial["number"]),
                trial["status"],
                str(last.get("epoch", "")),
                number(last.get("hypervolume"), 4),
                *(_short(trial["changes"].get(key)) for key in keys),
                number(trial["seconds"].get("all"), 1),
                number(last.get("memory_megabytes"), 0),
                trial["reason"],
            ]
        )
    sections = [
        Section(
            title="Trials",
            figures={"progress": progress_figure(trials, details)},
            body=table(header, cells, identifier="trials"),
        )
    ]
    if keys:
        shown = importance(trials)
        sections.append(
            Section(
                title="What mattered",
                figures={"parallel": parallel_figure(trials, keys)},
                body=table(
                    ["key", "share of the variance"],
                    [[key, number(value)] for key, value in shown.items()],
                    identifier="importance",
                ),
                note="Share of the variance of the trials' hypervolume that one key's value alone "
                "explains (eta squared over up to four bins); with few trials chance has a part.",
            )
        )
    return sections


def progress_figure(trials: Sequence[Mapping[str, Any]], details: Mapping[str, Any]) -> Figure:
    """Plot the hypervolume of the union over the seconds spent in trials, and each trial's own."""
    from dytrack_platform.config.search import GOALS
    from dytrack_platform.evaluation.report.pareto import hypervolume

    goals = [GOALS[name] for name in details["objectives"]]
    spent, total, union = [], 0.0, []
    volumes = []
    for trial in sorted(trials, key=lambda one: one["began"] + one["seconds"].get("all", 0.0)):
        total += trial["seconds"].get("all", 0.0)
        if trial["status"] != "failed":
            union += [
                [point["values"].get(name, np.nan) for name in details["objectives"]]
                for point in trial["points"]
            ]
        values = np.array(union, dtype=np.float64).reshape(-1, len(goals))
        spent.append(total)
        volumes.append(hypervolume(values, goals, details["reference"]))
    own = [t for t in trials if t["reports"]]
    return {
        "data": [
            {"x": spent, "y": volumes, "mode": "lines+markers", "name": "all trials so far"},
            {
                "x": np.cumsum([t["seconds"].get("all", 0.0) for t in own]).tolist(),
                "y": [t["reports"][-1]["hypervolume"] for t in own],
                "text": [f"{trial_name(t['number'])}, {t['status']}" for t in own],
                "mode": "markers",
                "name": "one trial",
            },
        ],
        "layout": {
            "title": {"text": "Hypervolume over cost spent"},
            "xaxis": {"title": {"text": "seconds in trials"}},
            "yaxis": {"title": {"text": "hypervolume"}},
        },
    }


def parallel_figure(trials: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Figure:
    """Draw every trial as a line through its values and its hypervolume."""
    own = [trial for trial in trials if trial["reports"]]
    dimensions = []
    for key in keys:
        places, names = _places([trial["changes"].get(key) for trial in own])
        dimension: dict[str, Any] = {"label": key, "values": places}
        if names is not None:
            dimension |= {"tickvals": list(range(len(names))), "ticktext": names}
        dimensions.append(dimension)
    volumes = [trial["reports"][-1]["hypervolume"] for trial in own]
    dimensions.append({"label": "hypervolume", "values": volumes})
    return {
        "data": [
            {
                "type": "parcoords",
                "line": {"color": volumes, "colorscale": "Viridis"},
                "dimensions": dimensions,
            }
        ],
        "layout": {"title": {"text": "Trials"}, "margin": {"l": 90, "r": 60, "t": 90, "b": 30}},
    }


def importance(trials: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return for each key the share of the hypervolume's variance that its value explains."""
    own = [trial for trial in trials if trial["reports"]]
    volumes = np.array([trial["reports"][-1]["hypervolume"] for trial in own])
    found: dict[str, float] = {}
    for key in sorted({key for trial in own for key in trial["changes"]}):
        places, names = _places([trial["changes"].get(key) for trial in own])
        values = np.array(places, dtype=np.float64)
        if names is None and len(values):
            cuts = np.unique(np.quantile(values, [0.25, 0.5, 0.75]))
            values = np.searchsorted(cuts, values, side="left").astype(np.float64)
        whole = float(((volumes - volumes.mean()) ** 2).sum()) if len(volumes) else 0.0
        within = sum(
            float(((volumes[values == one] - volumes[values == one].mean()) ** 2).sum())
            for one in np.unique(values)
        )
        found[key] = 1 - within / whole if whole > 0 else 0.0
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _places(values: Sequence[object]) -> tuple[list[float], list[str] | None]:
    """Return positions on an axis, and the names of its ticks where values are no numbers."""
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return [float(str(v)) for v in values], None
    names = sorted({_short(value) for value in values})
    return [float(names.index(_short(value))) for value in values], names


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "-".join(map(str, value))
    return "" if value is None else str(value)

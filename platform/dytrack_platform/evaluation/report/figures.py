"""The plots of a report, as plotly's JSON, and the still image for papers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dytrack_platform.confidence import Calibration
from dytrack_platform.errors import StorageError
from dytrack_platform.evaluation.report import labels
from dytrack_platform.evaluation.report.page import PALETTE, Figure, colour
from dytrack_platform.evaluation.report.pareto import front

_MARKS = {
    "operating points": ("circle", "o", PALETTE[0]),
    "trials": ("circle", "o", PALETTE[0]),
    "fixed exits": ("square", "s", PALETTE[5]),
    "random and cycle": ("diamond", "D", PALETTE[3]),
    "oracle (a bound)": ("star", "*", PALETTE[2]),
    "other trackers": ("x", "x", PALETTE[7]),
}
"""Mark in plotly, mark in matplotlib, and colour of each kind of point."""
_SIDES = {"left": ("right", -6), "center": ("center", 0), "right": ("left", 6)}
"""How matplotlib aligns a name beside a mark, and by how many points it moves it."""
_HEIGHTS = {"top": ("bottom", 5), "middle": ("center", 0), "bottom": ("top", -5)}
_AXES = {
    "success_auc": "success AUC",
    "iou": "mean IoU",
    "gmacs": "GMACs per frame",
    "ms_p50": "ms per frame (median)",
}
"""What an axis is called, by the key in ``summary.json`` or of a search's trial."""


def pareto_figure(
    points: Sequence[Mapping[str, Any]],
    baselines: Sequence[Mapping[str, Any]],
    cost: str,
    *,
    accuracy: str = "success_auc",
    kind: str = "operating points",
) -> Figure:
    """Plot accuracy over a cost, and join the points that nothing beats.

    Args:
        points: Points with their ``name``, accuracy and cost, as in ``summary.json``.
        baselines: The same for baselines and third-party trackers.
        cost: ``gmacs`` or ``ms_p50``; points without it are left out.
        accuracy: ``success_auc`` or ``iou``.
        kind: What the points are: operating points, or trials.
    """
    ours, others = _known(points, accuracy, cost), _known(baselines, accuracy, cost)
    ranges = _ranges([*ours, *others], accuracy, cost)
    places = _places([*ours, *others], accuracy, cost, ranges)
    data: list[dict[str, Any]] = []
    if ours:
        values = np.array([[p[accuracy], p[cost]] for p in ours], dtype=np.float64)
        best = [ours[k] for k in front(values, ("max", "min"))]
        data.append(
            {
                "x": [p[cost] for p in best],
                "y": [p[accuracy] for p in best],
                "mode": "lines",
                "name": "front",
                "line": {"color": PALETTE[0], "dash": "dot"},
                "hoverinfo": "skip",
            }
        )
    for name, group in {kind: ours, **_by_kind(others)}.items():
        symbol, _, tint = _MARKS[name]
        if group:
            data.append(
                {
                    "x": [p[cost] for p in group],
                    "y": [p[accuracy] for p in group],
                    "text": [p["name"] if places[p["name"]] else "" for p in group],
                    "customdata": [p["name"] for p in group],
                    "mode": "markers+text",
                    "textposition": [places[p["name"]] or labels.PLACES[0] for p in group],
                    "cliponaxis": False,
                    "name": name,
                    "marker": {"size": 11, "symbol": symbol, "color": tint},
                    "hovertemplate": f"%{{customdata}}<br>{_AXES[cost]} %{{x:.3f}}"
                    f"<br>{_AXES[accuracy]} %{{y:.3f}}<extra></extra>",
                }
            )
    return {
        "data": data,
        "layout": {
            "title": {"text": f"Accuracy over {_AXES[cost]}"},
            "xaxis": {"title": {"text": _AXES[cost]}, "range": list(ranges[0])},
            "yaxis": {"title": {"text": _AXES[accuracy]}, "range": list(ranges[1])},
        },
    }


def _ranges(
    points: Sequence[Mapping[str, Any]], accuracy: str, cost: str
) -> tuple[labels.Range, labels.Range]:
    return (
        labels.sensible_range((p[cost] for p in points), from_zero=True),
        labels.sensible_range((p[accuracy] for p in points), from_zero=False),
    )


def _places(
    points: Sequence[Mapping[str, Any]],
    accuracy: str,
    cost: str,
    ranges: tuple[labels.Range, labels.Range],
) -> dict[str, str | None]:
    """Say where the name of each point goes; our own points choose first."""
    names = [p["name"] for p in points]
    where = labels.place([(p[cost], p[accuracy]) for p in points], names, ranges)
    return dict(zip(names, where, strict=True))


def _by_kind(baselines: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Sort baselines into the kinds that have a mark of their own."""
    kinds = {"random": "random and cycle", "cycle": "random and cycle"}
    kinds |= {"oracle": "oracle (a bound)"}
    sorted_in: dict[str, list[Mapping[str, Any]]] = {name: [] for name in list(_MARKS)[2:]}
    for point in baselines:
        fixed = point["name"].startswith("exit-")
        first = point["name"].partition("-")[0]  # random-POINT is a random one, too
        kind = "fixed exits" if fixed else kinds.get(first, "other trackers")
        sorted_in[kind].append(point)
    return sorted_in


def _known(
    points: Sequence[Mapping[str, Any]], accuracy: str, cost: str
) -> list[Mapping[str, Any]]:
    return [p for p in points if p.get(cost) is not None and p[accuracy] is not None]


def curve_figure(
    title: str,
    axis: str,
    thresholds: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    scores: Mapping[str, float | None],
) -> Figure:
    """Plot one curve per tracker, its score in the legend."""
    return {
        "data": [
            {
                "x": list(thresholds),
                "y": list(curve),
                "mode": "lines",
                "name": f"{name} [{scores[name]:.3f}]" if scores[name] is not None else name,
                "line": {"color": colour(k), "dash": "solid" if k < len(PALETTE) else "dash"},
            }
            for k, (name, curve) in enumerate(curves.items())
        ],
        "layout": {
            "title": {"text": title},
            "xaxis": {"title": {"text": axis}},
            "yaxis": {"title": {"text": "share of frames"}, "range": [0, 1]},
        },
    }


def share_figure(
    title: str, shares: Mapping[str, Sequence[float]], blocks: Sequence[int]
) -> Figure:
    """Plot the shares of exits after ``blocks`` as stacked bars, one per sequence or attribute."""
    return {
        "data": [
            {
                "type": "bar",
                "x": list(shares),
                "y": [share[k] if k < len(share) else 0.0 for share in shares.values()],
                "name": f"after block {block}",
                "marker": {"color": colour(k)},
            }
            for k, block in enumerate(blocks)
        ],
        "layout": {
            "title": {"text": title},
            "barmode": "stack",
            "yaxis": {"title": {"text": "share of frames"}, "range": [0, 1]},
            "xaxis": {"automargin": True},
        },
    }


def calibration_figure(calibrations: Mapping[str, Calibration]) -> Figure:
    """Plot mean true IoU over mean predicted IoU, bin by bin, beside the diagonal."""
    data: list[dict[str, Any]] = [
        {
            "x": [0, 1],
            "y": [0, 1],
            "mode": "lines",
            "name": "perfect",
            "line": {"color": "#bbbbbb", "dash": "dot"},
        }
    ]
    for k, (name, calibration) in enumerate(calibrations.items()):
        full = calibration.counts > 0
        share = calibration.counts[full] / max(calibration.frames, 1)
        data.append(
            {
                "x": calibration.predicted[full].tolist(),
                "y": calibration.true[full].tolist(),
                "mode": "lines+markers",
                "name": f"{name} (error {calibration.expected_error:.3f})",
                "marker": {"size": (6 + 24 * np.sqrt(share)).tolist(), "color": colour(k)},
                "line": {"color": colour(k)},
            }
        )
    return {
        "data": data,
        "layout": {
            "title": {"text": "Predicted and true IoU"},
            "xaxis": {"title": {"text": "predicted IoU"}, "range": [0, 1]},
            "yaxis": {"title": {"text": "true IoU"}, "range": [0, 1]},
        },
    }


def radar_figure(scores: Mapping[str, Mapping[str, float]]) -> Figure:
    """Plot success AUC by attribute, one closed line per tracker."""
    data = []
    for k, (name, values) in enumerate(scores.items()):
        around = list(values)
        data.append(
            {
                "type": "scatterpolar",
                "r": [values[a] for a in (*around, *around[:1])],
                "theta": [*around, *around[:1]],
                "name": name,
                "line": {"color": colour(k), "dash": "solid" if k < len(PALETTE) else "dash"},
            }
        )
    return {
        "data": data,
        "layout": {
            "title": {"text": "Success AUC by attribute"},
            "polar": {"radialaxis": {"rangemode": "tozero"}},
        },
    }


def write_still(
    path: Path,
    points: Sequence[Mapping[str, Any]],
    baselines: Sequence[Mapping[str, Any]],
    *,
    costs: Sequence[str] = ("gmacs", "ms_p50"),
    accuracy: str = "success_auc",
    kind: str = "operating points",
) -> Path:
    """Write the Pareto figure as PNG, one panel for each cost; see :func:`pareto_figure`.

    Raises:
        StorageError: The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Still

    still = Still(figsize=(4.8 * max(len(costs), 1.25), 4.0), layout="constrained")
    FigureCanvasAgg(still)
    panels = still.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    for axes, cost in zip(panels, costs, strict=True):
        ours = _known(points, accuracy, cost)
        if ours:
            values = np.array([[p[accuracy], p[cost]] for p in ours], dtype=np.float64)
            best = values[front(values, ("max", "min"))]
            axes.plot(best[:, 1], best[:, 0], ":", color=PALETTE[0], linewidth=1)
        known = _known(baselines, accuracy, cost)
        ranges = _ranges([*ours, *known], accuracy, cost)
        places = _places([*ours, *known], accuracy, cost, ranges)
        for name, group in {kind: ours, **_by_kind(known)}.items():
            _, symbol, tint = _MARKS[name]
            for k, point in enumerate(group):
                label = name if k == 0 else "_"  # matplotlib leaves out names with this start
                axes.plot(point[cost], point[accuracy], symbol, color=tint, label=label)
                if (where := places[point["name"]]) is not None:
                    up, side = where.split()
                    axes.annotate(
                        point["name"],
                        (point[cost], point[accuracy]),
                        xytext=(_SIDES[side][1], _HEIGHTS[up][1]),
                        textcoords="offset points",
                        ha=_SIDES[side][0],
                        va=_HEIGHTS[up][0],
                        fontsize=8,
                    )
        axes.set_xlabel(_AXES[cost])
        axes.set_xlim(*ranges[0])
        axes.set_ylim(*ranges[1])
        axes.grid(alpha=0.25)
    panels[0].set_ylabel(_AXES[accuracy])
    handles, labels = panels[-1].get_legend_handles_labels()
    if handles:  # those of the last panel: more trackers have a time than a cost
        still.legend(handles, labels, loc="outside upper center", ncols=5, fontsize=8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        still.savefig(path, dpi=160, metadata={"Software": "dytrack"})
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}") from error
    return path

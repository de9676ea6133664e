"""Several trackers on one page, with paired intervals of their differences.

The intervals come from a paired bootstrap over sequences. Frames of a sequence are not
independent, so a sequence is one draw. All trackers are drawn together: what is hard about a
sequence is hard for each of them and cancels in the difference.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.errors import ResultError
from dytrack_platform.evaluation.report.figures import curve_figure, radar_figure
from dytrack_platform.evaluation.report.page import (
    Figure,
    Section,
    number,
    table,
    unordered,
    write_page,
)
from dytrack_platform.evaluation.scoring.dataset_scores import TrackerScore, sequence_scores
from dytrack_platform.evaluation.scoring.profiles import Profile

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and where it may lie."""

    value: float
    low: float
    high: float

    @property
    def decided(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Scores with intervals, and the difference of each tracker to the first."""

    profile: Profile
    measure: str
    """Success AUC, or AO where the profile pools frames."""
    scores: dict[str, Interval]
    differences: dict[str, Interval]
    """To the first tracker; it is missing itself."""
    sequences: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""

        def plain(found: Interval) -> dict[str, float]:
            return {"value": found.value, "low": found.low, "high": found.high}

        return {
            "protocol": self.profile.name,
            "measure": self.measure,
            "sequences": self.sequences,
            "scores": {name: plain(found) for name, found in self.scores.items()},
            "differences": {name: plain(found) for name, found in self.differences.items()},
        }


def compare(
    profile: Profile, trackers: Mapping[str, TrackerScore], *, draws: int = 4000, seed: int = 0
) -> Comparison:
    """Compare trackers by a paired bootstrap over the sequences that all of them have.

    Args:
        profile: The rules behind the scores.
        trackers: Two or more, the first is what the others are compared with.
        draws: How many resamples.
        seed: Of the resamples.

    Raises:
        ResultError: There are fewer than two trackers, or they share fewer than two sequences.
    """
    if len(trackers) < 2:
        raise ResultError(f"a comparison needs two trackers, got {', '.join(trackers) or 'none'}")
    shared = sorted(set.intersection(*(set(score.sequences) for score in trackers.values())))
    pooled = profile.average == "frames"
    rows = {}
    for name, score in trackers.items():
        own = [score.sequences[sequence] for sequence in shared]
        if pooled:
            rows[name] = np.array([[s.overlap_sum, s.overlap_frames] for s in own], dtype=float)
        else:
            rows[name] = np.array([sequence_scores(s).success_auc for s in own])
    if len(shared) < 2:
        raise ResultError(f"the trackers share {len(shared)} sequences; intervals need two or more")
    first = next(iter(rows))
    scores, differences = {}, {}
    for name, values in rows.items():
        if not pooled:
            scores[name] = interval(values, draws=draws, seed=seed)
            if name != first:
                differences[name] = interval(values - rows[first], draws=draws, seed=seed)
            continue
        scores[name] = interval(values, _pooled, draws=draws, seed=seed)
        if name != first:
            pair = np.stack([values, rows[first]], axis=2)
            differences[name] = interval(pair, _pooled_difference, draws=draws, seed=seed)
    return Comparison(
        profile=profile,
        measure="AO" if pooled else "success AUC",
        scores=scores,
        differences=differences,
        sequences=len(shared),
    )


def _pooled(drawn: Floats) -> Floats:
    """AO of each draw from (D, S, 2) sums and frames."""
    total = drawn.sum(axis=1)
    return np.asarray(total[:, 0] / total[:, 1])


def _pooled_difference(drawn: Floats) -> Floats:
    """Difference of two AOs from (D, S, 2, 2) sums and frames of both."""
    return _pooled(drawn[..., 0]) - _pooled(drawn[..., 1])


def write_comparison(
    path: Path, found: Comparison, trackers: Mapping[str, TrackerScore], unusual: Sequence[str]
) -> Path:
    """Write the page.

    Raises:
        StorageError: The file cannot be written.
    """
    names, rules = list(trackers), found.profile
    return write_page(
        path,
        title=f"{' and '.join(names)}: comparison by {rules.name}",
        lead=f"{found.sequences} sequences. Rules: {rules.source}. Intervals hold 95 % of paired "
        "bootstrap draws of whole sequences.",
        sections=[
            _difference_section(found),
            Section(title="Curves", figures=_curves(rules, trackers)),
            *_attribute_section(trackers),
            _sequence_section(trackers),
            Section(
                title="What was unusual",
                body=unordered(unusual, empty="Nothing."),
            ),
        ],
        data=found.to_dict(),
    )


def _difference_section(found: Comparison) -> Section:
    rows = []
    for name, score in found.scores.items():
        difference = found.differences.get(name)
        shown = ["", ""]
        if difference is not None:
            shown = [
                f"{difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]",
                ("better" if difference.value > 0 else "worse") if difference.decided else "open",
            ]
        rows.append([name, f"{score.value:.4f} [{score.low:.4f}, {score.high:.4f}]", *shown])
    first = next(iter(found.scores))
    header = ["tracker", found.measure, f"difference to {first}", "verdict"]
    figure = {
        "data": [
            {
                "x": [d.value for d in found.differences.values()],
                "y": list(found.differences),
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [d.high - d.value for d in found.differences.values()],
                    "arrayminus": [d.value - d.low for d in found.differences.values()],
                },
                "mode": "markers",
                "marker": {"size": 11},
            }
        ],
        "layout": {
            "title": {"text": f"{found.measure}: difference to {first}"},
            "xaxis": {"zeroline": True, "zerolinewidth": 2},
            "yaxis": {"automargin": True},
        },
    }
    return Section(title="Differences", body=table(header, rows), figures={"differences": figure})


def _curves(rules: Profile, trackers: Mapping[str, TrackerScore]) -> dict[str, Figure]:
    overall = {name: score.overall for name, score in trackers.items()}
    figures = {
        "success": curve_figure(
            "Success",
            "overlap threshold",
            rules.overlap_thresholds.tolist(),
            {name: scores.success_curve.tolist() for name, scores in overall.items()},
            {name: scores.success_auc for name, scores in overall.items()},
        )
    }
    if rules.precision_report != "none":
        figures["precision"] = curve_figure(
            "Precision",
            "pixels threshold",
            rules.pixel_thresholds.tolist(),
            {name: scores.precision_curve.tolist() for name, scores in overall.items()},
            {name: scores.precision20 for name, scores in overall.items()},
        )
    return figures


def _attribute_section(trackers: Mapping[str, TrackerScore]) -> list[Section]:
    by_tracker = {
        name: {a: scores.success_auc for a, scores in score.attributes.items()}
        for name, score in trackers.items()
    }
    attributes = list(next(iter(by_tracker.values())))
    if not attributes:
        return []
    rows = [[a, *(number(own.get(a)) for own in by_tracker.values())] for a in attributes]
    figures = {"attributes": radar_figure(by_tracker)} if len(attributes) > 2 else {}
    return [
        Section(title="Attributes", body=table(["attribute", *by_tracker], rows), figures=figures)
    ]


def _sequence_section(trackers: Mapping[str, TrackerScore]) -> Section:
    """Show sequences by how much the first tracker is behind the best other one."""
    first = next(iter(trackers.values()))
    areas = {
        name: [
            sequence_scores(score.sequences[name]).success_auc if name in score.sequences else None
            for score in trackers.values()
        ]
        for name in first.sequences
    }
    order = sorted(areas, key=lambda n: (areas[n][0] or 0) - max(a or 0 for a in areas[n][1:]))
    rows = [[name, *(number(area) for area in areas[name])] for name in order]
    return Section(
        title="Sequences",
        body=table(["sequence", *trackers], rows, identifier="sequences"),
        note=f"First those where {next(iter(trackers))} is furthest behind.",
    )


def interval(
    rows: Floats,
    statistic: Callable[[Floats], Floats] | None = None,
    *,
    confidence: float = 0.95,
    draws: int = 4000,
    seed: int = 0,
) -> Interval:
    """Return the percentile interval of a statistic of sequences.

    Args:
        rows: (S,) one number per sequence (a score, or a difference of two), or (S, K) numbers
            that the statistic combines.
        statistic: From (D, S) or (D, S, K) draws to (D,) values; the mean by default.
        confidence: Share of the draws inside the interval.
        draws: How many resamples.
        seed: Of the resamples; the same seed pairs the draws of several calls.
    """
    count = len(rows)
    combine = statistic or (lambda drawn: np.asarray(drawn.mean(axis=1)))
    # The same seed draws the same sequences for every tracker: that is what makes the intervals of
    # differences paired.
    places = np.random.default_rng(seed).integers(0, count, (draws, count))
    values = np.concatenate([combine(rows[part]) for part in np.array_split(places, 8)])
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(combine(rows[None])[0]), float(low), float(high))

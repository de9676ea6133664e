"""What an evaluation found: scores, speed, exits and calibration of each point."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.confidence import Calibration, calibrate
from dytrack_platform.datasets.io.text import usable_boxes
from dytrack_platform.datasets.sequence import VideoSequence
from dytrack_platform.errors import ResultError
from dytrack_platform.evaluation.report.pareto import CHEAPEST, DEAREST, standard_volume
from dytrack_platform.evaluation.report.states import NOT_SURE, StateScore, score_states
from dytrack_platform.evaluation.scoring.dataset_scores import (
    TrackerScore,
    frame_rate,
    plain_number,
    sequence_scores,
    summarise,
)
from dytrack_platform.evaluation.scoring.ground_truth import Annotation, Prepared
from dytrack_platform.evaluation.scoring.metrics import columns, overlaps
from dytrack_platform.evaluation.scoring.profiles import (
    FALLBACK,
    PROFILES,
    Default,
    Profile,
    SpeedRule,
)
from dytrack_platform.evaluation.scoring.sequence_scores import measure
from dytrack_platform.evaluation.tracking.protocol import SequenceResult

Floats = NDArray[np.float64]


def annotate(sequence: VideoSequence, *, with_size: bool = False) -> Annotation:
    """Bring a dataset's sequence to the form that profiles score.

    Args:
        sequence: What a reader gave.
        with_size: Decode the first frame for the image's size, which profiles that clip need.

    Raises:
        DataError: The first frame does not decode.
    """
    size = None
    if with_size:
        height, width = sequence.frames.read(0).shape[:2]
        size = (width, height)
    return Annotation(
        image_size=size,
        name=sequence.name,
        boxes_xywh=sequence.boxes_xywh,
        absent=sequence.flagged,
        attributes=sequence.attributes,
        object_class=sequence.object_class,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class PointSummary:
    """One operating point, fixed exit or other tracker over all sequences."""

    name: str
    thresholds: tuple[float, ...] | None
    """One per exit but the last; None for a tracker that has none."""
    price: float | None
    """IoU that a frame at full depth has to gain, where a point decides by value."""
    score: TrackerScore
    """By the report's profile."""
    got10k: TrackerScore
    """By GOT-10k's, for AO and SR."""
    results: Mapping[str, SequenceResult]
    """By sequence name."""
    overlaps: Mapping[str, Floats]
    """(N,) IoU per frame by sequence name; NaN where there is no annotation."""
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Names of sequences by attribute."""
    states: StateScore | None = None
    """What it believed of absent targets; None where it was not asked, or nobody knows."""

    @property
    def step_ms(self) -> Floats:
        """Milliseconds of every ``step``; ``start`` is not among them."""
        parts = [result.times_s[1:] for result in self.results.values()]
        times = np.concatenate(parts) if parts else np.zeros(0)
        return np.asarray(times[times > 0] * 1e3, dtype=np.float64)

    @property
    def speeds(self) -> dict[str, float | None]:
        """Frames per second by each toolkit's rule; all of them count the start of a sequence."""
        times = {name: result.times_s for name, result in self.results.items()}
        return {rule: plain_number(frame_rate(rule, times)) for rule in get_args(SpeedRule)}

    @property
    def gmacs(self) -> float:
        """Mean cost of a step; NaN where unknown."""
        return _mean_known([result.gmacs[1:] for result in self.results.values()])

    @property
    def exit_share(self) -> list[float]:
        """Share of steps by exit, shallow to deep; empty for a tracker without exits."""
        return exit_share([result.exit_indices for result in self.results.values()])

    @property
    def calibration(self) -> Calibration:
        """Predicted against true IoU over all steps."""
        predicted = [result.scores[1:] for result in self.results.values()]
        true = [self.overlaps[name][1:] for name in self.results]
        return calibrate(np.concatenate(predicted), np.concatenate(true))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON of one point; unknown numbers are None."""
        overall, ms, calibration = self.score.overall, self.step_ms, self.calibration
        p50, p95, p99 = np.percentile(ms, [50, 95, 99]) if len(ms) else [math.nan] * 3
        results = list(self.results.values())
        whole_ms = _mean_known([r.times_s[1:] for r in results]) * 1e3
        network_ms = _mean_known([r.network_ms[1:] for r in results])
        return {
            "name": self.name,
            "thresholds": None
            if self.thresholds is None
            else [_finite(t) for t in self.thresholds],
            "price": None if self.price is None else _finite(self.price),
            "success_auc": plain_number(overall.success_auc),
            "precision20": plain_number(overall.precision20),
            "norm_precision20": plain_number(overall.norm_precision20),
            "ao": plain_number(self.got10k.ao),
            "sr50": plain_number(self.got10k.sr50),
            "sr75": plain_number(self.got10k.sr75),
            "fps": plain_number(self.score.fps),
            "fps_by_rule": self.speeds,
            "ms_p50": plain_number(float(p50)),
            "ms_p95": plain_number(float(p95)),
            "ms_p99": plain_number(float(p99)),
            "ms_start": plain_number(_mean_known([r.times_s[:1] for r in results]) * 1e3),
            "ms_network": plain_number(network_ms),
            "ms_crop": plain_number(whole_ms - network_ms),
            "ms_decode": plain_number(_mean_known([r.decode_s for r in results]) * 1e3),
            "gmacs": plain_number(self.gmacs),
            "exit_share": self.exit_share,
            "auroc": plain_number(calibration.auroc),
            "calibration_error": plain_number(calibration.expected_error),
            "states": None if self.states is None else self.states.to_dict(),
            "success_curve": overall.success_curve.tolist(),
            "precision_curve": overall.precision_curve.tolist(),
            "norm_precision_curve": (
                None
                if overall.norm_precision_curve is None
                else overall.norm_precision_curve.tolist()
            ),
            "attributes": {
                name: scores.named(curves=False)
                | {"exit_share": self._share_of(self.attributes.get(name, ()))}
                | {"sequences": len(self.attributes.get(name, ()))}
                for name, scores in self.score.attributes.items()
            },
            "per_sequence": {name: self._row(name) for name in self.results},
        }

    def _share_of(self, sequences: Sequence[str]) -> list[float]:
        return exit_share(
            [self.results[name].exit_indices for name in sequences if name in self.results]
        )

    def _row(self, name: str) -> dict[str, Any]:
        result = self.results[name]
        row = sequence_scores(self.score.sequences[name]).named(curves=False)
        total = float(result.times_s.sum())
        return row | {
            "frames": len(result),
            "fps": plain_number(len(result) / total if total > 0 else math.nan),
            "exit_share": exit_share([result.exit_indices]),
            "undecoded": list(result.undecoded),
        }


def exit_share(exit_indices: Sequence[NDArray[np.int64]]) -> list[float]:
    """Share of steps by exit over several sequences; frames without an exit do not count."""
    taken = np.concatenate(exit_indices) if exit_indices else np.zeros(0, dtype=np.int64)
    taken = taken[taken >= 0]
    return [float(count / len(taken)) for count in np.bincount(taken)] if len(taken) else []


def chosen_exits(result: SequenceResult) -> NDArray[np.int64]:
    """Return (N,) exits of a run, -1 where the target's state and not the policy decided."""
    if not result.states:
        return result.exit_indices
    decided = np.isin(np.array(["", *result.states[:-1]]), NOT_SURE)
    return np.where(decided, -1, result.exit_indices)


def _mean_known(parts: Sequence[Floats]) -> float:
    values = np.concatenate(parts) if parts else np.zeros(0)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def _finite(value: float) -> float | str:
    return value if math.isfinite(value) else "inf"


def summarise_point(
    name: str,
    results: Sequence[SequenceResult],
    annotations: Mapping[str, Annotation],
    profile: Profile,
    thresholds: tuple[float, ...] | None = None,
    price: float | None = None,
) -> PointSummary:
    """Score what a tracker did on a dataset.

    Args:
        name: The point's name.
        results: One per sequence.
        annotations: By sequence name.
        profile: The rules; see :func:`reporting_profile`.
        thresholds: The point's thresholds, to be shown.
        price: Its price, where it decides by value.

    Raises:
        ResultError: There is no result, or the profile's toolkit would stop on one.
    """
    if not results:
        raise ResultError(f"{name}: no sequence was finished, so there is nothing to summarise")
    attributes: dict[str, list[str]] = {}
    classes = {}
    for result in results:
        annotation = annotations[result.name]
        for attribute in annotation.attributes:
            attributes.setdefault(attribute, []).append(result.name)
        if annotation.object_class is not None:
            classes[result.name] = annotation.object_class
    times = {result.name: result.times_s for result in results}

    def scored(by: Profile) -> TrackerScore:
        scores = []
        for result in results:
            annotation = replace(annotations[result.name], image_size=result.image_size)
            if by is not profile:
                if len(result) < by.least_frames:
                    continue  # a one-frame sequence has no AO
                if annotation.absent is None:  # GOT-10k's rules expect flags, and no NaN
                    annotation = replace(annotation, absent=~usable_boxes(annotation.boxes_xywh))
            prepared = Prepared(by, annotation)
            scores += measure(prepared, [result.boxes_xywh[: len(prepared.unknown)]])
        return summarise(by, scores, attributes=attributes, classes=classes, times_s=times)

    return PointSummary(
        name=name,
        thresholds=thresholds,
        price=price,
        score=scored(profile),
        got10k=scored(PROFILES["got10k"]),
        results={result.name: result for result in results},
        overlaps={result.name: _true_overlaps(result, annotations) for result in results},
        attributes=attributes,
        states=score_states(results, {name: a.absent for name, a in annotations.items()}),
    )


def _true_overlaps(result: SequenceResult, annotations: Mapping[str, Annotation]) -> Floats:
    annotation = annotations[result.name]
    truth = annotation.boxes_xywh[: len(result)]
    values = overlaps(columns(result.boxes_xywh[: len(truth)]), columns(truth), "guarded")
    values[~usable_boxes(truth)] = np.nan
    if annotation.absent is not None:
        values[annotation.absent[: len(truth)]] = np.nan
    return values


def reporting_profile(profile: Profile) -> Profile:
    """Return a profile with all three one-pass measures: this one, or the fallback.

    AO and SR come from GOT-10k's rules in any case; success, precision and normalised precision
    need a profile that has them, and GOT-10k's toolkit has only the first.
    """
    whole = profile.norm_scale is not None and profile.precision_report != "none"
    return profile if whole else PROFILES[FALLBACK.profile]


def reporting_reason(default: Default) -> str:
    """Say why a dataset is reported by the rules that :func:`reporting_profile` gave."""
    used = reporting_profile(PROFILES[default.profile])
    if used.name == default.profile:
        return default.reason
    return f"{default.profile} has no precision; this one is {FALLBACK.reason}"


def summary_json(
    dataset: str,
    protocol: str,
    points: Sequence[PointSummary],
    baselines: Sequence[PointSummary],
    exit_blocks: Sequence[int] = (),
) -> dict[str, Any]:
    """Return the whole of ``summary.json``.

    Args:
        dataset: Its name.
        protocol: Name of the profile of success and precision.
        points: Operating points of our tracker.
        baselines: What they are compared with.
        exit_blocks: Depth of each exit of our tracker in blocks, shallow to deep: what the shares
            of exits are about, and how exits are shown to people.

    Raises:
        ResultError: There is neither a point nor a baseline.
    """
    everything = [*points, *baselines]
    if not everything:
        raise ResultError(f"{dataset}: neither an operating point nor a baseline was evaluated")
    first = everything[0]
    plain = {
        "dataset": dataset,
        "protocol": protocol,
        "protocols": {"success, precision": first.score.profile.name, "ao, sr": "got10k"},
        "sequences": len(first.results),
        "frames": sum(len(result) for result in first.results.values()),
        "exit_blocks": list(exit_blocks),
        "points": [point.to_dict() for point in points],
        "baselines": [point.to_dict() for point in baselines],
        "unusual": unusual(everything),
    }
    costs = [(point.score.overall.success_auc, point.gmacs) for point in points]
    if costs and np.isfinite(costs).all():
        plain["hypervolume"] = {
            "goals": ["success_auc", "gmacs"],
            # The same for every run on every dataset, or two runs could not be compared.
            "reference": [0.0, DEAREST],
            "scale": f"share of 0 to 1 and {DEAREST:g} to {CHEAPEST:g} GMACs, logarithmic",
            "value": standard_volume(costs),
        }
    return plain


def hidden_truth(sequences: Sequence[VideoSequence]) -> str | None:
    """Say so where an owner gives no more than the first box of any sequence."""
    later = [sequence.boxes_xywh[1:] for sequence in sequences]
    if any(len(boxes) == 0 or not np.isnan(boxes).all() for boxes in later):
        return None
    return (
        "the owner keeps the truth of this split: only first boxes are known, so the scores here "
        "say nothing; --export writes what its server takes"
    )


def unusual(points: Sequence[PointSummary]) -> list[str]:
    """List what was unusual about annotations and results, each once."""
    lines: dict[str, None] = {}
    for point in points:
        for name, score in point.score.sequences.items():
            for note in score.notes:
                lines.setdefault(f"{name}: {note}")
            result = point.results[name]
            if result.undecoded:
                lines.setdefault(f"{name}: frames that do not decode: {_few(result.undecoded)}")
            if result.broken:
                lines.setdefault(
                    f"{name}: {point.name} gave NaN or no area, so the box before was kept, "
                    f"in frames {_few(result.broken)}"
                )
    return list(lines)


def _few(frames: tuple[int, ...]) -> str:
    """Name the first few frames, counted from 1."""
    shown = ", ".join(str(frame + 1) for frame in frames[:8])
    return shown if len(frames) <= 8 else f"{shown} and {len(frames) - 8} more"

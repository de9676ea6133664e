"""Evaluate trackers over Ray: every sequence at every point, longest first, each stored at once."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dytrack_platform.experiment.evaluate.actor_pool import (  # Ray's environment first
    ActorPool,
    open_pool,
)

from dytrack_model import checkpoint  # isort: skip
from dytrack_model.runtime import build
from dytrack_platform.datasets.sequence import Fault, VideoSequence
from dytrack_platform.errors import ConfigurationError, ResultError
from dytrack_platform.evaluation.peers.contest import processor
from dytrack_platform.evaluation.report.filmstrip import make_film
from dytrack_platform.evaluation.report.report import write_report
from dytrack_platform.evaluation.report.summary import (
    PointSummary,
    annotate,
    chosen_exits,
    exit_share,
    hidden_truth,
    reporting_profile,
    reporting_reason,
    summarise_point,
    summary_json,
)
from dytrack_platform.evaluation.scoring.ground_truth import Prepared
from dytrack_platform.evaluation.scoring.profiles import Profile, one_pass_default, profile
from dytrack_platform.evaluation.tracking.oracle import oracle
from dytrack_platform.evaluation.tracking.protocol import SequenceResult
from dytrack_platform.evaluation.tracking.results import (
    Fingerprint,
    read_finished,
    write_result,
)
from dytrack_platform.experiment.evaluate.pace import Pace
from dytrack_platform.experiment.evaluate.runtime_config import RuntimeConfig
from dytrack_platform.experiment.evaluate.specs import (
    NARROW_END,
    TrackerSpec,
    baseline_specs,
    code_version,
    count_deciding,
    matched_specs,
    point_specs,
    sequence_version,
)
from dytrack_platform.experiment.registry import registry
from dytrack_platform.storage.atomic import write_atomically
from dytrack_platform.storage.outputs import MADE_BY

WRITTEN = (
    "summary.json",
    "report.html",
    "pareto.json",
    "pareto.html",
    "pareto.png",
    "rejects.jsonl",
    "results",
)
"""What an evaluation writes into its folder, beside its log."""
MARKS = ("summary.json", "report.html", "evaluation.log")
"""Those by which its folder is known."""
_FILMS = 24  # sequences with images in the report: about 40 kB each


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What to evaluate, and where the results go."""

    dataset: str
    """Name in the report, and the key of the default profile."""
    out: Path
    """Folder of results, ``summary.json`` and ``report.html``."""
    model: str | None = None
    """Our tracker: its folder or registry name; None to judge other trackers only."""
    points: tuple[str, ...] = ()
    """Names of stored operating points, ``full``, or thresholds as ``0.6,0.8``; empty for all
    stored ones."""
    baselines: tuple[str, ...] = ("fixed", "static")
    """Of :data:`~dytrack_platform.experiment.evaluate.specs.BASELINES` and ``cv2:NAME``, with
    its own files as in ``cv2:Nano,backbone=FILE,neckhead=FILE``."""
    protocol: str | None = None
    """Profile of success and precision; None for the dataset's default."""
    states: bool = False
    """Whether our tracker says when its target is lost, and looks for it: at every point and
    baseline of ours, whose exits it then may overrule."""
    workers: int = 1
    """Sequences at a time."""
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    """Runtime, precision, device and threads of each worker; times are measured with them."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an evaluation is."""

    finished: int
    """Runs of a sequence at a point, those of an earlier evaluation included."""
    total: int
    """Those that follow from what the others show are in it as far as they can be foreseen."""
    frames_per_second: float
    """Of this evaluation, all workers together; 0 before a sequence is tracked."""
    seconds_left: float | None
    """None before a sequence is tracked."""


@dataclass
class _Runs:
    """What is finished so far."""

    job: Evaluation
    version: str
    """Digest of our tracker."""
    sequences: list[VideoSequence]
    report: Callable[[Progress], None] | None
    code: str = field(default_factory=code_version)
    data: dict[str, str] = field(default_factory=dict)
    """Digest of the data by sequence, once it was needed."""
    results: dict[str, dict[str, SequenceResult]] = field(default_factory=dict)
    """By spec and sequence."""
    problems: dict[str, Fault] = field(default_factory=dict)
    """By sequence: why it could not be tracked."""
    total: int = 0
    reused: int = 0
    """Results of an earlier evaluation that were taken over."""
    later: int = 0
    """Runs that may follow from what these show."""

    def __post_init__(self) -> None:
        self.pace = Pace(self.job.workers)

    def track(self, pool: ActorPool, specs: Sequence[TrackerSpec], *, later: int = 0) -> None:
        """Track every sequence at every spec, but for what an earlier run finished.

        As many specs as ``later`` says will follow from what these show.
        """
        self.later = later * len(self.sequences)
        self.pace.expect_later(later * sum(map(len, self.sequences)))
        if self.job.states:
            specs = [replace(spec, states=spec.rule != "third-party") for spec in specs]
        self.total += len(specs) * len(self.sequences)
        work = []
        for sequence in self.sequences:
            for spec in specs:
                fingerprint = self._fingerprint(spec, sequence)
                stored = read_finished(self.job.out, spec.name, sequence.name, fingerprint)
                if stored is None:
                    work.append((spec, sequence))
                    self.pace.expect(spec.name, len(sequence))
                else:
                    self.reused += 1
                    self._keep(spec, stored)
        self._tell()  # workers take a while to start
        for (spec, sequence), outcome in pool.run(work):
            if outcome.result is None:
                reason = f"{spec.name}: {outcome.problem}"
                fault = Fault(
                    dataset=self.job.dataset, sequence=sequence.name, frame=None, reason=reason
                )
                self.problems.setdefault(sequence.name, fault)
                self.pace.drop(spec.name, len(sequence))
                continue
            fingerprint = self._fingerprint(spec, sequence)
            write_result(self.job.out, spec.name, outcome.result, fingerprint)
            seconds = float(outcome.result.times_s.sum() + outcome.result.decode_s.sum())
            self.pace.finish(spec.name, len(sequence), seconds)
            self._keep(spec, outcome.result)

    def _keep(self, spec: TrackerSpec, result: SequenceResult) -> None:
        self.results.setdefault(spec.name, {})[result.name] = result
        self._tell()

    def _tell(self) -> None:
        if self.report:
            finished = sum(len(results) for results in self.results.values())
            pace, total = self.pace, self.total + self.later
            self.report(Progress(finished, total, pace.frames_per_second, pace.seconds_left))

    def _fingerprint(self, spec: TrackerSpec, sequence: VideoSequence) -> Fingerprint:
        return Fingerprint(
            model="none" if spec.rule == "third-party" else f"{self.version} on {self.job.runtime}",
            point=str(spec),
            dataset=f"{self.job.dataset}: {len(sequence)} frames, {self._digest(sequence)}",
            code=self.code,
            machine=f"{processor()}, {self.job.runtime.device}, {self.job.runtime.threads} threads",
        )

    def shares(self, spec: TrackerSpec) -> list[float]:
        """Exit shares of a spec, of the frames in which its policy chose.

        A frame after a doubtful or lost one runs to full depth whatever the policy says, also that
        of a baseline: drawn by the shares of all frames it would go deep more often, and cost more.
        """
        results = self.results[spec.name].values()
        return exit_share([chosen_exits(result) for result in results])

    def manifest(self) -> str:
        """Digest of the sequences behind the scores: names, lengths and content."""
        rows = [f"{s.name} {len(s)} {self._digest(s)}" for s in self.whole()]
        return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()[:16]

    def _digest(self, sequence: VideoSequence) -> str:
        if sequence.name not in self.data:
            self.data[sequence.name] = sequence_version(sequence)
        return self.data[sequence.name]

    def matched_shares(self, points: Sequence[TrackerSpec]) -> dict[str, list[float]]:
        """Exit shares of the points that use several exits; of the middle one where none does."""
        shares = {spec.name: self.shares(spec) for spec in points}
        varied = {name: taken for name, taken in shares.items() if max(taken) < 1}
        middle = [points[len(points) // 2].name] if points else []
        return varied or {name: shares[name] for name in middle}

    def whole(self) -> list[VideoSequence]:
        """Sequences that every spec finished.

        Raises:
            ResultError: There is none.
        """
        kept = [s for s in self.sequences if s.name not in self.problems]
        if not kept:
            reason = next(iter(self.problems.values())).reason
            raise ResultError(f"{self.job.dataset}: no sequence could be tracked; {reason}")
        return kept


def evaluate(
    job: Evaluation,
    sequences: Sequence[VideoSequence],
    faults: Sequence[Fault] = (),
    report: Callable[[Progress], None] | None = None,
) -> dict[str, Any]:
    """Run the trackers, score them, and write ``summary.json`` and ``report.html``.

    A killed evaluation that is run again goes on: a finished sequence is reused where model,
    point, data and code agree, and the log says so.

    Args:
        job: What to do.
        sequences: Of one dataset; a sequence that no tracker can be started on is listed.
        faults: What reading the dataset had to pass over; listed too.
        report: Called before workers start and after each sequence.

    Returns:
        What ``summary.json`` holds.

    Raises:
        ConfigurationError: A point, baseline, third-party tracker or protocol does not exist.
        ModelLookupError: The model reference leads to nothing.
        ResultError: Not one sequence could be tracked.
        ClusterError: Ray does not start, or has fewer CPUs than the workers need.
        FailureError: A tracker failed, or a worker kept dying.
    """
    # Spell out what is to be run, and refuse mistakes before anything starts.
    default = one_pass_default(job.dataset)
    rules = reporting_profile(profile(job.protocol or default.profile))
    saved, version = None, "none"
    if job.model is not None:
        with registry.located(job.model) as folder:  # what was downloaded goes again
            saved, version = checkpoint.load(folder), checkpoint.fingerprint(folder)
    points = [] if saved is None else point_specs(saved, job.points)
    baselines = baseline_specs(job.baselines, saved)
    if not points and not baselines:
        raise ConfigurationError("model: give a tracker of ours, or another one such as cv2:MIL")
    _refuse_twins(job.dataset, sequences)
    refused = _unscorable(rules, sequences)
    unfit = {fault.sequence for fault in refused}
    if len(unfit) == len(sequences):
        raise ResultError(f"{job.dataset}: no sequence can be scored; {refused[0].reason}")
    # Track, longest sequence first: the last to finish is then a short one.
    ordered = sorted((s for s in sequences if s.name not in unfit), key=len, reverse=True)
    runs = _Runs(job, version, ordered, report)
    matched = {"random", "cycle"} & set(job.baselines)
    if saved is not None and job.runtime.device == "cpu":
        how = job.runtime  # refuse here what every worker would refuse
        build(saved.network, how.runtime, how.precision, how.device, how.threads)
    with open_pool(saved, workers=job.workers, runtime=job.runtime) as pool:
        runs.track(pool, [*points, *baselines], later=len(matched) * count_deciding(points))
        if matched:
            # Random and cycled exits cost what a point costs: only then does the difference in
            # accuracy say what its decisions are worth. A point with one exit decides nothing.
            found = matched_specs(runs.matched_shares(points), points)
            costly = [spec for spec in found if spec.rule in matched]
            runs.track(pool, costly)
            baselines += costly
    # Score what every spec finished.
    blocks = () if saved is None else saved.network.config.exits
    shown = [_summarise(runs, spec, rules) for spec in points]
    others = [_summarise(runs, spec, rules) for spec in baselines]
    if "oracle" in job.baselines:
        # The bound needs every fixed exit on every sequence, so it comes after all of them.
        others.append(_oracle(runs, others, rules))
    summary = summary_json(job.dataset, rules.name, shown, others, blocks)
    summary = {"generator": MADE_BY, **summary, "reused": runs.reused}
    summary["rejected"] = sorted({*unfit, *runs.problems})
    summary["data"] = runs.manifest()
    summary["model"] = version
    if job.protocol is None:
        summary["protocol_reason"] = reporting_reason(default)
    if (hidden := hidden_truth(runs.whole())) is not None:
        summary["unusual"].insert(0, hidden)
    problems = [*faults, *refused, *runs.problems.values()]
    summary["unusual"] += [f"{fault.sequence}: {fault.reason}" for fault in problems]
    # Write it down.
    rejects = "".join(json.dumps(asdict(fault)) + "\n" for fault in problems)
    write_atomically(job.out / "rejects.jsonl", rejects)
    write_atomically(job.out / "summary.json", json.dumps(summary, indent=1) + "\n")
    films = _films(runs.whole(), shown or others)
    write_report(
        job.out, summary=summary, profile=rules, points=shown, baselines=others, films=films
    )
    return summary


def missing(summary: Mapping[str, Any]) -> str:
    """Say which sequences are not in an evaluation's scores; empty where all are."""
    names = summary["rejected"]
    if not names:
        return ""
    total = len(names) + summary["sequences"]
    first = next(line for line in summary["unusual"] if line.startswith(f"{names[0]}: "))
    return (
        f"{len(names)} of {total} sequences are not in these scores: {', '.join(names[:5])}"
        f"{', …' if len(names) > 5 else ''}; {first}"
    )


def _unscorable(rules: Profile, sequences: Sequence[VideoSequence]) -> list[Fault]:
    """Find the annotations that the profile's toolkit would stop on, before any time is spent."""
    found = []
    for sequence in sequences:
        try:
            Prepared(rules, annotate(sequence))
        except ResultError as error:
            fault = Fault(
                dataset=sequence.dataset, sequence=sequence.name, frame=None, reason=str(error)
            )
            found.append(fault)
    return found


def _refuse_twins(dataset: str, sequences: Sequence[VideoSequence]) -> None:
    counts = Counter(sequence.name for sequence in sequences)
    twins = sorted(name for name, count in counts.items() if count > 1)
    if twins:
        raise ResultError(f"{dataset}: two sequences are called {twins[0]}; rename one of them")


def _summarise(runs: _Runs, spec: TrackerSpec, rules: Profile) -> PointSummary:
    whole = runs.whole()
    return summarise_point(
        spec.name,
        [runs.results[spec.name][sequence.name] for sequence in whole],
        {sequence.name: annotate(sequence) for sequence in whole},
        rules,
        spec.values if spec.rule == "thresholds" else None,
        spec.value.price if spec.value else None,
    )


def _oracle(runs: _Runs, others: Sequence[PointSummary], rules: Profile) -> PointSummary:
    """Combine the fixed exits into the bound that a decisioner could reach."""
    fixed = [
        point
        for point in others
        if point.name.startswith("exit-") and not point.name.endswith(NARROW_END)
    ]
    whole = runs.whole()
    results = [
        oracle([p.results[s.name] for p in fixed], [p.overlaps[s.name] for p in fixed])
        for s in whole
    ]
    return summarise_point("oracle", results, {s.name: annotate(s) for s in whole}, rules)


def _films(sequences: Sequence[VideoSequence], points: Sequence[PointSummary]) -> dict[str, Any]:
    """Draw the sequences on which the last point is worst."""
    last = points[-1]
    worst = sorted(sequences, key=lambda s: last.score.sequences[s.name].mean_overlap)[:_FILMS]
    by_quality = [last, *(point for point in points if point is not last)]
    return {
        sequence.name: make_film(
            sequence,
            {point.name: point.results[sequence.name] for point in by_quality},
            {point.name: point.overlaps[sequence.name] for point in by_quality},
        )
        for sequence in worst
    }

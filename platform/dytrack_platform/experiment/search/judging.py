"""From trackers to a front: points on a cache each, the closed loop, and what stands beside.

A tracker is entered with the placements that it may have. In mode post-hoc there is one tracker
and many placements, which leave out exits by never leaving there; elsewhere each tracker has its
own placement.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dytrack_model import checkpoint
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import CycleExit, FixedExit, Policy, RandomExit, shares_to_cycle
from dytrack_platform.config import ExperimentConfig, to_dict
from dytrack_platform.config.search import Mode
from dytrack_platform.errors import StorageError, TrainingError
from dytrack_platform.experiment.search import fingerprint
from dytrack_platform.experiment.search.front.members import (
    CACHE,
    Candidate,
    Front,
    Member,
    knee,
    named,
)
from dytrack_platform.experiment.search.points import threshold_front as solving
from dytrack_platform.experiment.search.points.baselines import at_shares, baselines, like_cheaper
from dytrack_platform.experiment.search.points.exit_cache import ExitCache, Flags
from dytrack_platform.experiment.search.points.latency import Latency, Measuring, costs_of, measured
from dytrack_platform.experiment.search.points.rerun import Measured, Videos, record, rerun, run
from dytrack_platform.experiment.search.points.threshold_front import Costs, Placement, Point
from dytrack_platform.experiment.search.trials.trial import judged_by, pair_cache
from dytrack_platform.storage import files
from dytrack_platform.training.closed_loop import Film, ManyTargets
from dytrack_platform.training.metrics import dtype_of

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A trained tracker."""

    weights: str
    """Its folder or URL."""
    placements: tuple[Placement, ...]
    """That it may have."""
    changes: dict[str, Any]
    """Of the recipe."""
    trial: int | None = None
    points: tuple[Point, ...] = ()
    """What it promised on validation pairs, where that is known."""

    def load(self) -> DyTrackNetwork:
        """Read it.

        Raises:
            CheckpointError: It is damaged.
        """
        with files.local_copy(self.weights) as folder:
            return checkpoint.load(folder).network


@dataclass(frozen=True, kw_only=True, slots=True)
class _Opened:
    """A tracker in memory, with its cache."""

    entry: Entry
    network: DyTrackNetwork
    config: ExperimentConfig
    costs: Costs
    latency: Latency
    cache: ExitCache


@dataclass(frozen=True, kw_only=True, slots=True)
class Judge:
    """Where and how trackers are judged.

    Attributes:
        config: The recipe.
        videos: Held-out sequences; None: the recipe's validation data, and no closed loop.
        out: Where caches and times are kept.
        how: What milliseconds are measured with.
        reference: (G,) value of each objective from which on a point is worthless.
        say: Called with one-line messages.
    """

    config: ExperimentConfig
    videos: Videos | None
    out: Path
    how: Measuring
    reference: tuple[float, ...]
    say: Tell

    def front(self, mode: Mode, entries: Sequence[Entry], promised: Sequence[Point] = ()) -> Front:
        """Judge trackers and return their front.

        Args:
            mode: Of the search.
            entries: The trackers.
            promised: Points on validation data that count for the hypervolume whether or not
                their tracker is looked at again; with sequences to follow none of them do.

        Raises:
            TrainingError: No point keeps the constraints and beats the reference point.
            DataError: There are fewer than two usable sequences.
        """
        began = time.monotonic()
        search = self.config.search
        opened = [self._open(entry) for entry in self._promising(entries)]
        found: list[tuple[Point, _Opened]] = []
        tried = 0
        for one in opened:
            solved = solving.solve(
                one.cache, one.entry.placements, one.costs, search, self.reference
            )
            tried += solved.tried
            found += [(point, one) for point in solved.points]
        seconds = {"recording and solving": time.monotonic() - began}
        kept = [(p, one) for p, one in found if solving.keeps(p.values, search)]
        best = [kept[k] for k in solving.unbeaten([p for p, _ in kept], search.objectives)]
        values = [point.values for point, _ in best]
        chosen = [
            best[k]
            for k in solving.spread(values, search.objectives, self.reference, search.members)
        ]
        if not chosen:
            raise TrainingError(
                f"no point keeps the constraints and beats the reference point "
                f"{dict(zip(search.objectives, self.reference, strict=True))}; state a worse one "
                "in search.reference"
            )
        self.say(f"{tried} settings scored, {len(best)} that nothing beats, {len(chosen)} members")
        candidates = [self._candidate(point, one) for point, one in chosen]
        measured_beside: dict[str, Measured] = {}
        if self.videos is not None:
            began = time.monotonic()
            candidates = self._closed_loop(chosen)
            candidates.sort(key=lambda c: c.point.values[solving.ordering_cost(search.objectives)])
        members = named(candidates, search)
        middle = candidates[members.index(knee(members, search.objectives))]
        its = next(o for o in opened if o.entry.weights == middle.weights)
        if self.videos is not None:
            name = members[candidates.index(middle)].name
            measured_beside = self._beside(middle, name, its)
            seconds["closed loop"] = time.monotonic() - began
        beside = baselines(its.cache, _own(its, members, candidates), its.costs)
        for one in (other for other in opened if other is not its):
            beside |= at_shares(one.cache, _own(one, members, candidates), one.costs)
        return Front(
            mode=mode,
            name=self.config.name,
            members=tuple(members),
            candidates=tuple(candidates),
            objectives=search.objectives,
            reference=self.reference,
            hypervolume=solving.volume(
                [p for p, _ in kept] + ([] if self.videos is not None else list(promised)),
                search.objectives,
                self.reference,
            ),
            latency=tuple(dict.fromkeys(one.latency for one in opened)),
            baselines=beside,
            measured_baselines=measured_beside,
            notes={
                "tried": tried,
                "placements": sum(len(entry.placements) for entry in entries),
                "knee": members[candidates.index(middle)].name,
                "sequences": len(set(its.cache.sequence.tolist())),
                "frames": len(its.cache.sequence),
                "seconds": seconds,
                "undecided": undecided(
                    members, candidates, solving.ordering_cost(search.objectives)
                ),
                "points": [
                    {"exits": list(p.exits), **p.values, "trial": one.entry.trial}
                    for p, one in best
                ],
            },
        )

    def _promising(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return the trackers that have a point among the best promises, or all without any."""
        search = self.config.search
        pairs = [(point, entry) for entry in entries for point in entry.points]
        if not pairs:
            return list(entries)
        kept = [(p, e) for p, e in pairs if solving.keeps(p.values, search)]
        best = [kept[k] for k in solving.unbeaten([p for p, _ in kept], search.objectives)]
        values = [point.values for point, _ in best]
        chosen = solving.spread(values, search.objectives, self.reference, search.members)
        wanted = {best[k][1].weights for k in chosen}
        return [entry for entry in entries if entry.weights in wanted]

    def _open(self, entry: Entry) -> _Opened:
        network = entry.load()
        config = judged_by(to_dict(self.config), network.config)
        latency = measured(self.out, network.config, self.how)
        if self.videos is not None:
            cache = self._recorded(self.videos, config, network)
        else:
            cache = pair_cache(config, network, torch.device(self.how.device))
        return _Opened(
            entry=entry,
            network=network,
            config=config,
            costs=costs_of(network, latency),
            latency=latency,
            cache=cache,
        )

    def _recorded(
        self, videos: Videos, config: ExperimentConfig, network: DyTrackNetwork
    ) -> ExitCache:
        """Return what every exit says along the videos; nothing is followed a second time.

        Following takes minutes, and a search that goes on, or has more trials than before, meets
        the same trackers again.
        """
        number = dtype_of(config.train.precision, videos.device)
        digest = fingerprint.of_recording(network, videos.films, f"{videos.device} {number}")
        kept = self.out / CACHE / f"{digest}.npz"
        if kept.exists():
            try:
                cache = ExitCache.load(kept)
            except StorageError as error:
                self.say(f"{error}; it is recorded anew")
            else:
                self.say(f"what every exit says on {len(videos.films)} sequences is there already")
                return cache
        self.say(f"recording every exit on {len(videos.films)} sequences")
        cache = record(videos.targets(config, network), videos.films)
        cache.save(kept)
        return cache

    def _candidate(self, point: Point, one: _Opened) -> Candidate:
        return Candidate(
            point=point,
            depths=one.network.config.exits,
            changes=one.entry.changes,
            weights=one.entry.weights,
            trial=one.entry.trial,
        )

    def _closed_loop(self, chosen: Sequence[tuple[Point, _Opened]]) -> list[Candidate]:
        candidates: list[Candidate] = []
        for number, (point, one) in enumerate(chosen):
            self.say(f"closed loop: member {number + 1} of {len(chosen)}")
            choosing, scoring = one.cache.halves()
            promise = partial(_promise, one.cache.part(scoring), one.costs)
            again = rerun(
                self._many(one),
                self._films(one, scoring),
                self._films(one, choosing),
                [point],
                one.costs,
                self.config.search.tolerance,
                promise,
            )
            candidates.append(self._candidate(point, one).after(again[0]))
        return candidates

    def _many(self, one: _Opened) -> ManyTargets:
        assert self.videos is not None  # who asks for the closed loop has them
        return self.videos.targets(one.config, one.network)

    def _films(self, one: _Opened, which: Flags) -> list[Film]:
        """Return the films of a half of the cache."""
        assert self.videos is not None  # as above
        half = one.cache.part(which)
        names = {one.cache.names[number] for number in half.sequence.tolist()}
        return [film for film in self.videos.films if film.name in names]

    def _beside(self, middle: Candidate, name: str, one: _Opened) -> dict[str, Measured]:
        """Run what looks at nothing in closed loop, at the knee point's shares.

        Exits at random, exits in a cycle, and each exit alone.
        """
        point, depths = middle.point, one.network.config.exits
        shares = [0.0] * len(depths)
        for depth, share in zip(point.exits, point.shares, strict=True):
            shares[depths.index(depth)] = share
        films = self._films(one, one.cache.halves()[1])
        cycle, seeds = shares_to_cycle(shares), iter(range(len(films)))
        policies: dict[str, Callable[[], Policy]] = {
            f"random at {name}": lambda: RandomExit(shares, seed=next(seeds)),
            f"cycle at {name}": lambda: CycleExit(cycle),
        }
        for depth in dict.fromkeys((*point.exits, depths[-1])):
            policies[f"exit-{depth}"] = partial(FixedExit, depths.index(depth))
        found = run(self._many(one), films, policies, one.costs)
        return {key: measured_one for key, (measured_one, _) in found.items()}


def _own(
    one: _Opened, members: Sequence[Member], candidates: Sequence[Candidate]
) -> dict[str, Point]:
    """Return the points of a tracker's members by their names."""
    pairs = zip(members, candidates, strict=True)
    return {member.name: c.point for member, c in pairs if c.weights == one.entry.weights}


def _promise(half: ExitCache, costs: Costs, points: Sequence[Point]) -> list[Point]:
    return solving.score(half, [point.setting for point in points], costs)


def undecided(
    members: Sequence[Member], candidates: Sequence[Candidate], cost: str
) -> dict[str, dict[str, Any]]:
    """Say which members are not proved better than a cheaper one: by name.

    Sequences are the samples; measured values count where they are there.
    """
    means = [
        one.point.by_sequence if one.measured is None else one.measured.by_sequence
        for one in candidates
    ]
    spent = [member.costs().get(cost, member.gmacs) for member in members]
    found = {}
    for member, pair in zip(members, like_cheaper(means, spent), strict=True):
        if pair is not None:
            other, mean, low, high = pair
            found[member.name] = {
                "cheaper": members[other].name,
                "difference": mean,
                "low": low,
                "high": high,
            }
    return found

"""Search of one trained tracker: every placement of its exits and every threshold, from a cache.

No sampler and no training. The deepest exit's track is recorded once with what every exit says;
then placements are enumerated. A placement leaves out exits of the tracker by never leaving
there, so that what is promised is what this very tracker does.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from dytrack_model.checkpoint import SavedTracker
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import CycleExit, FixedExit, Policy, RandomExit, shares_to_cycle
from dytrack_platform.config import ExperimentConfig, resolve, to_dict
from dytrack_platform.config.schema import ResidentSource
from dytrack_platform.experiment.search import threshold_front as solving
from dytrack_platform.experiment.search.baselines import baselines
from dytrack_platform.experiment.search.exit_cache import ExitCache
from dytrack_platform.experiment.search.latency import Measuring, costs_of, full_depth, measured
from dytrack_platform.experiment.search.members import Candidate, Front, Member, knee, named
from dytrack_platform.experiment.search.rerun import Measured, Videos, record, rerun, run
from dytrack_platform.experiment.search.space import placements
from dytrack_platform.experiment.search.threshold_front import Costs, Point
from dytrack_platform.experiment.search.trial import pair_cache
from dytrack_platform.training.closed_loop import Film, ManyTargets

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A trained tracker."""

    folder: Path
    saved: SavedTracker


def search(
    config: ExperimentConfig,
    model: Model,
    source: ResidentSource | None,
    out: Path,
    how: Measuring,
    say: Tell,
) -> Front:
    """Search a trained tracker.

    Args:
        config: The recipe; its data are used where no sequences are given.
        model: The tracker; its configuration takes the recipe's place.
        source: Sequences to record, and to run members on in closed loop; None: validation pairs
            of the recipe, and no closed loop.
        out: Where the cache and the table of times are kept.
        how: What milliseconds are measured with.
        say: Called with one-line messages.

    Raises:
        ConfigurationError: No placement lies among the tracker's exits.
        DataError: There are fewer than two usable sequences.
    """
    network = model.saved.network
    config = of_tracker(config, network)
    chosen = placements(config, network.config.exits)
    device = torch.device(how.device)
    began = time.monotonic()
    videos = None if source is None else Videos.read(source, config.search.frames, device)
    if videos is not None and videos.left_out:
        say(f"{len(videos.left_out)} sequences cannot be followed: {', '.join(videos.left_out)}")
    latency = measured(out, network.config, how)
    costs = costs_of(network, latency)
    reference = solving.reference_point(config.search, full_depth(costs))
    if videos is not None:
        say(f"recording every exit on {len(videos.films)} sequences")
        cache = record(videos.targets(config, network), videos.films)
    else:
        cache = pair_cache(config, network, device)
    cache.save(out / "cache.npz")
    recorded = time.monotonic()
    solved = solving.solve(cache, chosen, costs, config.search, reference)
    say(
        f"{solved.tried} settings of {len(chosen)} placements in "
        f"{time.monotonic() - recorded:.1f} s: {len(solved.points)} that nothing beats"
    )
    weights = str(model.folder.absolute())
    candidates = [
        Candidate(point=p, depths=network.config.exits, changes={}, weights=weights)
        for p in select(solved.points, config, reference)
    ]
    front = Front(
        mode="post-hoc",
        name=config.name,
        members=tuple(named(candidates, config.search)),
        candidates=tuple(candidates),
        objectives=config.search.objectives,
        reference=reference,
        hypervolume=solved.hypervolume,
        latency=(latency,),
        baselines=baselines(cache, [one.point for one in candidates], costs),
        notes={
            "tried": solved.tried,
            "placements": len(chosen),
            "sequences": len(set(cache.sequence.tolist())),
            "frames": len(cache.sequence),
            "seconds": {"recording": recorded - began},
        },
    )
    if videos is None:
        return front
    return in_closed_loop(front, config, network, videos, cache, costs, say)


def of_tracker(config: ExperimentConfig, network: DyTrackNetwork) -> ExperimentConfig:
    """Return the recipe with a tracker's own model."""
    return resolve({**to_dict(config), "model": network.config.to_dict()})


def select(
    points: Sequence[Point], config: ExperimentConfig, reference: Sequence[float]
) -> list[Point]:
    """Choose the points that become members: those that cover most, as they score."""
    search = config.search
    kept = [point for point in points if solving.keeps(point.values, search)]
    best = [kept[k] for k in solving.unbeaten(kept, search.objectives)]
    values = [point.values for point in best]
    return [best[k] for k in solving.spread(values, search.objectives, reference, search.members)]


def in_closed_loop(
    front: Front,
    config: ExperimentConfig,
    network: DyTrackNetwork,
    videos: Videos,
    cache: ExitCache,
    costs: Costs,
    say: Tell,
) -> Front:
    """Run the members of a front that share one tracker, and what they are compared with."""
    began = time.monotonic()
    scoring = cache.halves()[1]
    half = cache.part(scoring)
    names = {cache.names[number] for number in half.sequence.tolist()}
    films = [film for film in videos.films if film.name in names]
    many = videos.targets(config, network)

    def promise(points: Sequence[Point]) -> list[Point]:
        return solving.score(half, [(p.exits, p.thresholds) for p in points], costs)

    found = rerun(
        many,
        films,
        [one.point for one in front.candidates],
        costs,
        config.search.tolerance,
        promise,
        lambda done, total: say(f"closed loop: {done} of {total} members"),
    )
    candidates = [one.after(again) for one, again in zip(front.candidates, found, strict=True)]
    members = named(candidates, config.search)
    beside = beside_knee(many, films, candidates, members, config, costs)
    return replace(
        front,
        members=tuple(members),
        candidates=tuple(candidates),
        measured_baselines=beside,
        notes={
            **front.notes,
            "closed_loop_sequences": len(films),
            "seconds": {
                **front.notes.get("seconds", {}),
                "closed_loop": time.monotonic() - began,
            },
        },
    )


def beside_knee(
    many: ManyTargets,
    films: Sequence[Film],
    candidates: Sequence[Candidate],
    members: Sequence[Member],
    config: ExperimentConfig,
    costs: Costs,
) -> dict[str, Measured]:
    """Run, in closed loop, random exits and the cycle at the knee point's shares, and every exit.

    Random exits of a film are seeded by its position.
    """
    chosen = members.index(knee(members, config.search.objectives))
    point = candidates[chosen].point
    depths = many.network.config.exits
    shares = [0.0] * len(depths)
    for depth, share in zip(point.exits, point.shares, strict=True):
        shares[depths.index(depth)] = share
    cycle = shares_to_cycle(shares)
    seeds = iter(range(len(films)))
    policies: dict[str, Callable[[], Policy]] = {
        f"random at {members[chosen].name}": lambda: RandomExit(shares, seed=next(seeds)),
        f"cycle at {members[chosen].name}": lambda: CycleExit(cycle),
    }
    for depth in dict.fromkeys((*point.exits, depths[-1])):
        policies[f"exit-{depth}"] = partial(FixedExit, depths.index(depth))
    return {name: found for name, (found, _) in run(many, films, policies, costs).items()}

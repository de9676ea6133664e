"""Choose thresholds from recorded scores: by share, by budget, or by a guaranteed risk.

Every function takes what a tracker said at *all* exits of the same frames, which
:meth:`~dytrack_model.online.Tracker.step_all` records. What comes out holds for those crops; a
tracker that leaves early sees other crops next, so run it again at the chosen thresholds.

Dimensions: N frames, E exits, S sequences.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dytrack_model.config import require
from dytrack_model.policy import OperatingPoint

Floats = NDArray[np.float64]


def exits_taken(
    predicted: Floats, thresholds: Sequence[float], hysteresis: float = 0.0
) -> NDArray[np.int64]:
    """Return the (N,) exit at which each frame leaves.

    Args:
        predicted: (N, E) predicted IoU of every exit; with ``hysteresis``, of one sequence in the
            order of its frames.
        thresholds: E - 1 thresholds.
        hysteresis: How much they move towards the exit of the frame before.
    """
    if hysteresis:
        return _policy_exits(predicted, tuple(thresholds), hysteresis)
    # The first exit whose score reaches its threshold; the last one always does.
    limits = np.array([*thresholds, -np.inf])
    # argmax over booleans is the first True; the comparison with -inf makes sure that there is one.
    return np.asarray((predicted >= limits).argmax(axis=1), dtype=np.int64)


def _policy_exits(
    predicted: Floats, thresholds: tuple[float, ...], hysteresis: float
) -> NDArray[np.int64]:
    """Ask the policy itself, frame by frame: what it remembers decides too."""
    policy = OperatingPoint(name="", thresholds=thresholds, hysteresis=hysteresis).policy()
    policy.begin_target()
    exits = np.full(len(predicted), len(thresholds), dtype=np.int64)
    for frame, scores in enumerate(predicted.tolist()):
        policy.begin_frame()
        for index in range(len(thresholds)):
            if policy.leave(index, scores[index]):
                exits[frame] = index
                break
    return exits


def quantile_thresholds(predicted: Floats, shares: Sequence[float]) -> tuple[float, ...]:
    """Choose thresholds so that each exit takes its share of the frames.

    Args:
        predicted: (N, E) predicted IoU of every exit.
        shares: Wanted share of the frames at each exit.

    Returns:
        E - 1 thresholds: at each exit the quantile of the scores of the frames that have not
        left yet. Source: budgeted batch classification of MSDNet (ICLR 2018).
    """
    staying = np.ones(len(predicted), dtype=bool)
    left = 1.0
    thresholds = []
    for index in range(predicted.shape[1] - 1):
        # Only frames that no exit before has taken come here, and they are no fair sample: an
        # exit's quantile over all frames would count the easy ones twice.
        scores = predicted[staying, index]
        # Shares are of all frames; what leaves here is a share of those that are left. Rounding
        # can leave a little more wanted than there is.
        leaving = min(1.0, shares[index] / left) if left > 0 else 1.0
        if shares[index] <= 0 and len(scores):
            # The highest quantile is the highest score, and a threshold lets that one leave.
            threshold = math.inf
        else:
            # Where nobody is left, any threshold gives the recorded frames the same exits; 0 is
            # the cheapest for a new one that gets here.
            threshold = float(np.quantile(scores, 1 - leaving)) if len(scores) else 0.0
        thresholds.append(max(0.0, threshold))
        staying &= predicted[:, index] < threshold
        left -= shares[index]
    return tuple(thresholds)


def budget_thresholds(
    predicted: Sequence[Floats], costs: Sequence[float], budget: float, hysteresis: float = 0.0
) -> tuple[float, ...]:
    """Spend a mean cost for each frame: the deepest thresholds that stay within it.

    The shares of the exits form a geometric series (MSDNet); its ratio is found by bisection on
    the cost that the recorded frames would have had.

    Args:
        predicted: For each sequence (N, E) predicted IoU of every exit.
        costs: Cost of stopping at each exit, rising: milliseconds or GMACs.
        budget: Largest mean cost of a frame, in the same unit.
        hysteresis: Of the policy that will run; its cost is what is kept below the budget.

    Returns:
        E - 1 thresholds; infinite ones where the budget pays for full depth.

    Raises:
        ConfigurationError: Not even the first exit fits.
    """
    pooled = np.concatenate(list(predicted))
    exits: int = pooled.shape[1]
    require(
        budget >= costs[0],
        f"budget: the first exit alone costs {costs[0]:.4g}, so {budget:g} cannot be kept; raise "
        "it, or train a tracker with a shallower exit",
    )
    # A bisection would stop just short of full depth, and would leave early where nothing is won.
    if budget >= costs[-1]:
        return (math.inf,) * (exits - 1)
    spent = np.asarray(costs, dtype=np.float64)
    best = (0.0,) * (exits - 1)
    low, high = -30.0, 30.0  # logarithm of the ratio: from all shallow to all deep
    # The mean cost rises with the ratio, so halving finds it: 60 times is past a double's digits.
    for _ in range(60):
        middle = 0.5 * (low + high)
        # The largest exponent is taken off before exp, which would overflow at e^(30 (E - 1)).
        weights = np.exp(middle * np.arange(exits) - max(0.0, middle * (exits - 1)))
        thresholds = quantile_thresholds(pooled, list(weights / weights.sum()))
        # What the frames would really have cost, not what the shares promise: tied scores leave
        # together, so a quantile cannot always cut where it should.
        taken = (
            np.concatenate([exits_taken(one, thresholds, hysteresis) for one in predicted])
            if hysteresis
            else exits_taken(pooled, thresholds)
        )
        if float(spent[taken].mean()) <= budget:
            best, low = thresholds, middle
        else:
            high = middle
    return best


def regret(true_iou: Floats, exits: NDArray[np.int64]) -> Floats:
    """Return (N,) max(0, IoU at full depth - IoU at the exit taken), from (N, E) true IoU."""
    taken = true_iou[np.arange(len(exits)), exits]
    return np.asarray(np.maximum(0.0, true_iou[:, -1] - taken), dtype=np.float64)


def risk_bound(losses: Floats, delta: float) -> float:
    """Return an upper bound of the mean loss that holds with probability 1 - delta.

    Args:
        losses: (S,) independent losses in [0, 1], one for each *sequence*: the frames of one
            video are not exchangeable.
        delta: Probability that the bound may fail.

    Returns:
        A value in [0, 1]. Source: the betting bound of Waudby-Smith and Ramdas (JRSS-B 2024) as
        in Bates et al. (Risk-controlling prediction sets, JACM 2021), proposition 5.
    """
    count = len(losses)
    if count == 0:
        return 1.0
    # Somebody bets, sequence by sequence, that the losses are below a supposed mean. If the
    # supposed mean is the true one, the bets are fair, and by Ville's inequality the wealth never
    # exceeds 1 / delta with probability 1 - delta. So a mean at which it does is refuted, and the
    # bound is where refuting begins.
    #
    # Running mean and variance, each started from one assumed observation: a mean of 1/2 and the
    # largest variance that values in [0, 1] can have, 1/4. Without it the first stakes divide by 0.
    steps = np.arange(1, count + 1)
    means = (0.5 + np.cumsum(losses)) / (steps + 1)
    variances = (0.25 + np.cumsum((losses - means) ** 2)) / (steps + 1)
    # A stake may depend on what came before only: one that has seen its own loss is no fair bet.
    before = np.concatenate([[0.25], variances[:-1]])
    # The stake that makes wealth grow fastest at this variance; above 1 it could turn negative.
    stakes = np.minimum(1.0, np.sqrt(2 * math.log(1 / delta) / (count * before)))

    def refuted(mean: float) -> bool:
        # In logarithms, since products of hundreds of factors leave a double's range. A factor of
        # 0 is ruin, -inf, from which no later bet recovers, and that is right.
        with np.errstate(divide="ignore"):
            wealth = np.cumsum(np.log(np.maximum(1 - stakes * (losses - mean), 0.0)))
        # The largest wealth on the way counts, not the last one: Ville's inequality allows it.
        return bool(wealth.max() > math.log(1 / delta))

    # Each factor rises with the supposed mean, so the refuted means are all those above a limit.
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if refuted(middle) else (middle, high)
    return high


def sequences_needed(epsilon: float, delta: float) -> int:
    """Return how many sequences, all of them without loss, can prove a risk of ``epsilon``."""

    def enough(count: int) -> bool:
        return risk_bound(np.zeros(count), delta) <= epsilon

    most = 1
    while not enough(most) and most < 100_000:
        most *= 2
    # The bound falls as sequences are added: between half of that and that lies the first.
    low, high = most // 2, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


@dataclass(frozen=True, kw_only=True, slots=True)
class Certified:
    """Thresholds with a guarantee."""

    thresholds: tuple[float, ...]
    """E - 1 equal thresholds; infinite ones where nothing shallower could be proved."""
    risk: float
    """Mean regret of the sequences at these thresholds."""
    bound: float
    """What the regret of a new sequence does not exceed on average, with the confidence asked."""


def risk_thresholds(
    predicted: Sequence[Floats],
    true_iou: Sequence[Floats],
    epsilon: float,
    delta: float,
    hysteresis: float = 0.0,
) -> Certified:
    """Choose the cheapest threshold whose regret is proved to stay below ``epsilon``.

    One threshold serves all exits. It falls from full depth in steps fixed beforehand, and stops
    before the first step whose bound exceeds ``epsilon``: a fixed sequence of tests, so that the
    confidence holds for the one chosen. Sources: Learn then Test (Angelopoulos et al. 2021);
    "Fast yet Safe" (2405.20915) for early exits. The guarantee is on the mean over new sequences
    like these, of the mean regret of a sequence's frames, on the crops of the full-depth track.

    Args:
        predicted: For each of S sequences (N, E) predicted IoU.
        true_iou: For each of them (N, E) true IoU; frames without a valid box left out.
        epsilon: Regret allowed, in IoU.
        delta: Probability that the promise may fail.
        hysteresis: Of the policy that will run, which is the one that is certified.

    Raises:
        ConfigurationError: ``epsilon`` or ``delta`` lies outside (0, 1).
    """
    for name, value in (("risk", epsilon), ("delta", delta)):
        require(0 < value < 1, f"{name}: must lie between 0 and 1, got {value}")
    exits = predicted[0].shape[1]
    chosen = Certified(thresholds=(math.inf,) * (exits - 1), risk=0.0, bound=0.0)
    for step in range(101):
        threshold = 1.0 - step / 100
        limits = (threshold,) * (exits - 1)
        # One loss for each sequence, however long: its frames resemble each other, so counting
        # them one by one would promise more than was seen.
        losses = np.array(
            [
                regret(true, exits_taken(said, limits, hysteresis)).mean()
                for said, true in zip(predicted, true_iou, strict=True)
            ]
        )
        bound = risk_bound(losses, delta)
        # To go on after a failure and take a later success would be to test until one passes:
        # each test has its chance delta of being wrong, and only a fixed order keeps it at that.
        if bound > epsilon:
            break
        chosen = Certified(thresholds=limits, risk=float(losses.mean()), bound=bound)
    return chosen

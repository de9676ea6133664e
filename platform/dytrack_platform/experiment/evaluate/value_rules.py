"""How the value of going deeper is known: five rules for ``dytrack calibrate``.

Source: our choice; docs/LOG.md tells what each was worth.
"""

import math
from typing import Literal

import torch

from dytrack_model.config import ModelConfig
from dytrack_model.depth_value import ambiguity_weights, drop_weights
from dytrack_model.network import DyTrackNetwork
from dytrack_platform.config.schema import ResidentSource
from dytrack_platform.errors import ConfigurationError, DataError
from dytrack_platform.experiment.evaluate.price import ByValue
from dytrack_platform.training.depth_fit import examples, explore, fit
from dytrack_platform.training.memory import films_of, many_targets

Rule = Literal["thresholds", "ambiguity", "drop", "gain", "rollouts"]
"""thresholds: the paper's, on the predicted IoU. ambiguity: the value is how ambiguous the exit's
own answer is: something alike, a jump, a change of size. drop: it is what the predicted IoU fell
since the last frame at full depth. gain: it is fitted to the IoU that depth gained in a frame.
rollouts: to what it gained in that frame and the next ones."""

_HORIZON = 20  # frames of a roll-out
_STARTS = 2000  # roll-outs, about: they are most of the work
_COPIES = 2  # times that each sequence is followed with exits at random


def require_price(rule: Rule, audit_every: int | None, *, narrow: bool) -> None:
    """Refuse what only a rule with a price can do.

    Raises:
        ConfigurationError: The rule is thresholds.
    """
    for option, given in (("audit-every", audit_every), ("narrow", narrow)):
        if given and rule == "thresholds":
            raise ConfigurationError(
                f"--{option}: needs a --rule with a price, got it for thresholds"
            )


def require_region(config: ModelConfig, *, narrow: bool) -> None:
    """Refuse a point over the narrow search region of a tracker that has none.

    Raises:
        ConfigurationError: It has none.
    """
    if narrow and not config.narrow_size:
        raise ConfigurationError(
            "--narrow: needs a tracker with a narrow search region, and this one has none "
            "(model.narrow_size is 0); leave --narrow out, or train with model.narrow_size"
        )


def value_of(
    rule: Rule,
    network: DyTrackNetwork,
    source: ResidentSource,
    audit_every: int,
    device: str = "cpu",
    *,
    narrow: bool = False,
) -> ByValue | None:
    """Return the rule by value, fitted on held-out sequences where it has to be; None: thresholds.

    Args:
        rule: Its name.
        network: In evaluation mode; it is not changed.
        source: The sequences, read into memory for the two rules that are fitted.
        audit_every: Frames after which full depth is run whatever the value.
        device: Where the network follows them: PyTorch's, whatever the runtime is.
        narrow: Whether the point is to look at the narrow search region.

    Raises:
        DataError: There are no sequences, or too few frames with a box to fit anything to.
    """
    if rule == "thresholds":
        return None
    own = {"ambiguity": ambiguity_weights, "drop": drop_weights}
    if rule in own:
        weights = own[rule](network.exit_count)
        return ByValue(weights=weights, audit_every=audit_every, narrow=narrow)
    pictures, films, _ = films_of((source,), torch.device(device))
    many = many_targets(network, pictures, half=False)
    repeated, tracked = explore(many, films, copies=_COPIES)
    frames = sum(len(one.exits) for one in tracked)
    stride = max(1, frames // _STARTS)
    found = examples(many, repeated, tracked, horizon=_HORIZON, stride=stride)
    weights = fit(found, rolled=rule == "rollouts")
    if not all(math.isfinite(value) for row in weights for value in row):
        raise DataError(f"{source.root}: too few frames with a box to fit the rule {rule} to")
    return ByValue(weights=weights, audit_every=audit_every, narrow=narrow)

"""A cache of made numbers: what exits say, and boxes that follow each other."""

import numpy as np
import pytest

from dytrack_platform.config import resolve
from dytrack_platform.experiment.search.points.exit_cache import ExitCache
from dytrack_platform.experiment.search.points.threshold_front import Costs


def made_cache(*, frames=600, exits=4, sequences=6, boxes=False, seed=0):
    rng = np.random.default_rng(seed)
    hard = rng.random(frames)[:, None]
    iou = np.clip(0.8 - 0.5 * hard * np.linspace(1, 0.3, exits), 0, 1)
    predicted = np.clip(iou + 0.05 * rng.standard_normal(iou.shape), 0, 1)
    truth = np.hstack([rng.uniform(50, 100, (frames, 2)), rng.uniform(30, 60, (frames, 2))])
    said = truth[:, None] + rng.normal(0, 3, (frames, exits, 4))
    return ExitCache(
        depths=tuple(range(1, exits + 1)),
        predicted=predicted,
        iou=iou,
        sequence=np.sort(rng.integers(0, sequences, frames)),
        names=tuple(f"video/{k}" for k in range(sequences)),
        boxes_xywh=said if boxes else None,
        truth_xywh=truth if boxes else None,
    )


@pytest.fixture
def cache():
    return made_cache()


@pytest.fixture
def costs():
    return Costs(stop={"gmacs": np.array([1.0, 2.0, 3.0, 4.0])}, learning={"gmacs": 0.5})


@pytest.fixture
def recipe():
    """Return a function that makes a recipe; ``trials=3`` changes ``search.trials``."""

    def make(**search):
        space = {
            "model.exits": {"placements": {"count": [1, 3]}},
            "model.recycling": {"choice": ["none", "add"]},
            "train.head_lr": {"loguniform": [1e-4, 1e-2]},
        }
        values = {"name": "x", "model": {"variant": "test"}, "search": {"space": space, **search}}
        return resolve(values)

    return make

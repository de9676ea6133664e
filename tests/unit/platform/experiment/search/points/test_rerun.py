"""Members in closed loop: thresholds are fitted again on the half that they are chosen on."""

import numpy as np
import pytest
import torch

from dytrack_model.config import variant
from dytrack_model.network import DyTrackNetwork
from dytrack_model.thresholds import quantile_thresholds
from dytrack_platform.config import resolve
from dytrack_platform.config.schema import ResidentSource
from dytrack_platform.datasets.synthetic import SynthConfig, make
from dytrack_platform.experiment.search.points.exit_cache import clearness
from dytrack_platform.experiment.search.points.latency import costs_of
from dytrack_platform.experiment.search.points.rerun import Videos, policy_of, rerun, run
from dytrack_platform.experiment.search.points.threshold_front import Point

pytestmark = pytest.mark.slow


@pytest.fixture
def followed(tmp_path):
    """What follows targets, and four films."""
    torch.manual_seed(0)
    looks = SynthConfig(frames=(6, 8), width=160, height=120, target_side=(20.0, 40.0))
    make(tmp_path / "made", looks, "test", 4, workers=1)
    source = ResidentSource(dataset="got10k", root=str(tmp_path / "made"), split="test")
    videos = Videos.read(source, 0, torch.device("cpu"))
    config = resolve({"name": "x", "model": {"variant": "test"}})
    return videos.targets(config, DyTrackNetwork(variant("test"))), videos.films


@pytest.mark.parametrize("tolerance", [0.0, 2.0])
def test_a_promise_that_is_missed_is_fitted_again_on_the_choosing_half(followed, tolerance):
    many, films = followed
    choosing, scoring = films[::2], films[1::2]
    costs = costs_of(many.network)
    point = Point(
        exits=(1, 4), thresholds=(0.3,), shares=(0.4, 0.6), values={"iou": 0.9, "gmacs": 0.1}
    )
    asked = []

    def promise(points):
        asked.extend(points)
        return list(points)

    (done,) = rerun(many, scoring, choosing, [point], costs, tolerance, promise)
    if tolerance > 1:
        assert (asked, done.refitted, done.point) == ([], False, point)
        return
    _, tracked = run(many, choosing, {"": policy_of((1, 2, 4), point)}, costs)[""]
    said = np.concatenate([track.predicted_iou for track in tracked])[:, [0, 2]]
    assert asked[0].thresholds == pytest.approx(quantile_thresholds(said, (0.4, 0.6)))
    assert set(done.measured.by_sequence) == {film.name for film in scoring}


def test_frames_that_run_deep_by_the_clock_are_no_part_of_the_shares(followed):
    """The first frame of each film is one; of the others as many leave early as was promised."""
    many, films = followed
    values = {"iou": 0.9, "gmacs": 0.1}
    point = Point(
        exits=(1, 4), thresholds=(0.5,), rule="ambiguity", shares=(0.4, 0.6), values=values
    )
    asked = []
    rerun(many, films, films, [point], costs_of(many.network), 0.0, lambda p: asked.extend(p) or p)
    _, tracked = run(many, films, {"": policy_of((1, 2, 4), point)}, costs_of(many.network))[""]
    free = np.concatenate([clearness(track.shown)[1:, 0] for track in tracked])
    early = (free >= asked[0].thresholds[0]).sum() / sum(len(t.exits) for t in tracked)
    assert early == pytest.approx(0.4, abs=1 / len(free))

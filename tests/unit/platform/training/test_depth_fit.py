"""The value of depth is fitted to what depth gained."""

import numpy as np
import pytest
import torch

from dytrack_model.config import variant
from dytrack_model.depth_value import FEATURES
from dytrack_model.exits.heads import hann_window
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import FixedExit, RandomExit
from dytrack_platform.config.schema import ResidentSource
from dytrack_platform.datasets.resident.load import Pictures, read_pictures, shots_of, wanted
from dytrack_platform.datasets.resident.store import build
from dytrack_platform.errors import DataError
from dytrack_platform.training.closed_loop import ManyTargets, film_of
from dytrack_platform.training.depth_fit import Examples, examples, explore, fit, simulate


@pytest.fixture(scope="module")
def tracked(raw_folders):
    """Return many targets, films, and the films followed with exits at random."""
    torch.manual_seed(0)
    sequences = wanted(ResidentSource(dataset="video", root=str(raw_folders / "videos")))
    pictures = Pictures()
    read_pictures(sequences, pictures, 640)
    films = []
    for sequence in sequences:
        numbers = np.array([pictures.numbers[sequence.frames.path(k)] for k in range(10)])
        films.append(film_of(shots_of(sequence, pictures, 1.0), numbers, (160, 120)))
    network = DyTrackNetwork(variant("test")).eval()
    store = build(pictures.pixels, torch.device("cpu"))
    many = ManyTargets(network, store, hann_window(network.config.map_size, 1.0), half=False)
    return many, films, *explore(many, films, copies=2)


def test_every_exit_but_the_last_gets_examples_with_labels(tracked):
    many, _, films, found = tracked
    described = examples(many, films, found, horizon=3, stride=1)
    assert len(described) == 2
    for one in described:
        assert one.features.shape == (len(one.gain), FEATURES)
        assert len(one.gain) > 4
        assert np.isfinite(one.features).all()
        assert (np.abs(one.gain) <= 1).all()
    # Labels of a frame are what the films say, not what was rolled out.
    assert not np.array_equal(described[0].gain, described[0].frame_gain)


def test_films_without_a_frame_to_learn_from_are_refused(tracked):
    many, _, repeated, found = tracked
    with pytest.raises(DataError, match="no frame that has a box follows one at full depth"):
        examples(many, repeated, found, horizon=3, stride=1000)


def test_ridge_finds_what_the_gain_depends_on():
    rng = np.random.default_rng(0)
    features = rng.random((4000, FEATURES))
    features[:, 0] = 1.0
    gain = 0.02 + 0.3 * features[:, 2] + 0.01 * rng.standard_normal(4000)
    made = Examples(features, np.zeros(4000), gain, np.zeros(4000))
    (weights,) = fit([made])
    assert np.argmax(np.abs(weights)) == 2
    assert weights[2] == pytest.approx(0.3, rel=0.2)
    (none,) = fit([made], rolled=False)
    assert np.abs(none).max() < 1e-9


@pytest.mark.slow
def test_policies_are_simulated_side_by_side_as_if_alone(tracked):
    many, films, _, _ = tracked
    plans = {
        "shallow": [FixedExit(0) for _ in films],
        "deep": [FixedExit(2) for _ in films],
        "mixed": [RandomExit((0.5, 0.2, 0.3), 7 + i) for i in range(len(films))],
    }
    together = simulate(many, films, plans)
    assert together["shallow"][1].tolist() == [1, 0, 0]
    assert together["deep"][1].tolist() == [0, 0, 1]
    assert together["mixed"][1].sum() == pytest.approx(1)
    alone = simulate(many, films, {"mixed": [RandomExit((0.5, 0.2, 0.3), 7 + i) for i in range(3)]})
    assert np.allclose(alone["mixed"][0], together["mixed"][0], atol=1e-3)


def test_a_horizon_ends_the_simulation(tracked):
    many, films, _, _ = tracked
    short = simulate(many, films, {"deep": [FixedExit(2) for _ in films]}, horizon=2)
    whole = simulate(many, films, {"deep": [FixedExit(2) for _ in films]})
    assert not np.allclose(short["deep"][0], whole["deep"][0])

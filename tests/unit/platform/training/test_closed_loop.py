"""Following many targets side by side is what the online tracker does one by one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dytrack_model import Tracker
from dytrack_model.config import variant
from dytrack_model.correction import overlap
from dytrack_model.crops import clip_box
from dytrack_model.depth_value import FEATURES, ValueOfDepth, ValueRule, ambiguity_weights
from dytrack_model.exits.heads import hann_window
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import FixedExit, RandomExit
from dytrack_platform.config.schema import ResidentSource
from dytrack_platform.datasets.resident.load import Pictures, read_pictures, shots_of, wanted
from dytrack_platform.datasets.resident.store import build
from dytrack_platform.training.closed_loop import (
    ManyTargets,
    always,
    clip_boxes,
    film_of,
    follow,
)

NETWORKS = {
    "plain": {},
    "cached": {"attention": "template-cached"},
    "matching": {"token_type": "target", "template_matching": True, "decisioner": "both"},
}


@pytest.fixture(scope="module")
def sequences(raw_folders):
    return wanted(ResidentSource(dataset="video", root=str(raw_folders / "videos")))


@pytest.fixture(scope="module")
def films(sequences):
    pictures = Pictures()
    read_pictures(sequences, pictures, 640)
    made = []
    for sequence in sequences:
        numbers = np.array([pictures.numbers[sequence.frames.path(k)] for k in range(10)])
        made.append(film_of(shots_of(sequence, pictures, 1.0), numbers, (160, 120)))
    return build(pictures.pixels, torch.device("cpu")), made


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("plain", "cached")]


@pytest.fixture(params=[*SLOW, "matching"])
def network(request):
    torch.manual_seed(0)
    return DyTrackNetwork(variant("test", **NETWORKS[request.param])).eval()


def test_a_film_has_no_box_where_the_target_is_absent(films):
    _, made = films
    assert [film.name for film in made] == ["video/one", "video/three", "video/two"]
    assert np.isnan(made[0].boxes_xywh[3]).all()
    assert made[0].boxes_xywh[4].tolist() == [48, 46, 30, 24]


RULE = ValueRule(
    weights=((0.0, 0.0, 0.4) + (0.0,) * (FEATURES - 3),) * 2,
    costs=(0.4, 0.6, 1.0),
    price=0.5,
    audit_every=4,
)
POLICIES = {
    "first exit": lambda: FixedExit(0),
    "full depth": lambda: FixedExit(2),
    "random": lambda: RandomExit((0.4, 0.2, 0.4), seed=3),
    "value": lambda: ValueOfDepth(RULE),
    "ambiguity": lambda: ValueOfDepth(replace(RULE, weights=ambiguity_weights(3), price=3.0)),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_boxes_are_the_online_trackers(network, sequences, films, policy):
    pictures, made = films
    make = POLICIES[policy]
    many = ManyTargets(network, pictures, hann_window(network.config.map_size, 1.0), half=False)
    tracked = follow(many, made, [make() for _ in made])
    by_name = {f"{s.dataset}/{s.name}": s for s in sequences}
    for film, found in zip(made, tracked, strict=True):
        sequence = by_name[film.name]
        tracker = Tracker(network, make())
        tracker.start(sequence.frames.read(0), film.boxes_xywh[0])
        for frame in range(1, 10):
            one = tracker.step(sequence.frames.read(frame))
            assert np.abs(one.box_xywh - found.boxes_xywh[frame - 1]).max() < 1, f"frame {frame}"
            assert one.exit_index == found.exits[frame - 1]
            predicted = found.predicted_iou[frame - 1, one.exit_index]
            assert one.predicted_iou == pytest.approx(predicted, abs=0.02)
        mixed = len(set(found.exits.tolist())) > 1
        assert mixed == (policy in ("random", "value", "ambiguity"))


def test_several_films_are_followed_as_each_alone(network, films):
    pictures, made = films
    many = ManyTargets(network, pictures, hann_window(network.config.map_size, 1.0), half=False)
    short = type(made[0])(made[0].name, made[0].pictures[:5], (160, 120), made[0].boxes_xywh[:5])
    together = follow(many, [short, *made], always(0, [short, *made]))
    assert [len(track.exits) for track in together] == [4, 9, 9, 9]
    for film, track in zip([short, *made], together, strict=True):
        (alone,) = follow(many, [film], always(0, [film]))
        np.testing.assert_allclose(alone.boxes_xywh, track.boxes_xywh, atol=0.5)


def test_the_overlap_is_judged_where_there_is_truth(network, films):
    pictures, made = films
    many = ManyTargets(network, pictures, hann_window(network.config.map_size, 1.0), half=False)
    for track in follow(many, made, always(0, made)):
        assert np.flatnonzero(np.isnan(track.own_iou)).tolist() == [2]
        assert track.iou.shape == (9, network.exit_count)


def test_iou():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [20, 20, 5, 5], [0, 0, 10, 10]], float)
    truth = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10], [np.nan] * 4], float)
    np.testing.assert_allclose(overlap(boxes, truth), [1, 1 / 3, 0, np.nan])


def test_boxes_of_many_targets_are_clipped_as_one_targets():
    rng = np.random.default_rng(0)
    sizes = rng.integers(5, 500, (300, 2))
    boxes = np.concatenate([rng.uniform(-300, 600, (300, 2)), rng.uniform(0, 60, (300, 2))], axis=1)
    one_by_one = [clip_box(box, *size) for box, size in zip(boxes, sizes.tolist(), strict=True)]
    np.testing.assert_allclose(clip_boxes(boxes[None], sizes)[0], one_by_one)

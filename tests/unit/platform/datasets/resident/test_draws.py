"""Pairs from pictures in memory: the same ones everywhere, with boxes that are where things are."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dytrack_platform.config.schema import OverlayConfig
from dytrack_platform.datasets.resident.draws import PairDraws
from dytrack_platform.datasets.resident.load import load
from dytrack_platform.datasets.resident.stream import ResidentStream
from dytrack_platform.errors import ConfigurationError

CPU = torch.device("cpu")
BATCH = 8
PLAIN = OverlayConfig(
    distractors=0.0, hidden=0.0, loose_template=0.0, tint=0.0, contrast=0.0, blur=0.0
)


@pytest.fixture
def config(resident_recipe):
    overlay = {"composed": 1.0, "distractors": 0.7, "hidden": 0.5, "blur": 0.5}
    return resident_recipe(data__overlay=overlay, data__grayscale_prob=0.3)


@pytest.fixture
def resident(config):
    data = config.data
    sources = tuple(replace(s, root=f"{data.root}/{s.root}") for s in data.resident)
    return load(replace(data, resident=sources), config.model, CPU)


@pytest.fixture
def stream(config, resident):
    """Return a function that makes a worker's stream."""

    def make(seed=1, **place):
        made = {"seed": seed, "batch_size": BATCH, **place}
        return ResidentStream(config.data, config.model, resident, **made)

    return make


FIELDS = ("template", "search", "boxes_cxcywh", "template_boxes_cxcywh")


def equal(one, other, rows=slice(None)):
    """Compare pixels to a grey level: a batch of another size may round otherwise."""
    for name in FIELDS:
        a, b = getattr(one, name).float(), getattr(other, name)[rows].float()
        if a.shape != b.shape or not torch.allclose(a, b, atol=1.01 if a.ndim == 4 else 0):
            return False
    return True


def test_a_batch_is_what_training_takes(stream, config):
    batch = next(iter(stream().batches(0)))
    size, small = config.model.search_size, config.model.template_size
    assert batch.search.shape == (BATCH, 3, size, size)
    assert batch.template.shape == (BATCH, 3, small, small)
    assert batch.search.dtype == torch.uint8
    for boxes in (batch.boxes_cxcywh, batch.template_boxes_cxcywh):
        assert boxes.shape == (BATCH, 4)
        assert boxes.dtype == torch.float32
        assert (boxes[:, :2] > 0).all()
        assert (boxes[:, :2] < 1).all(), "a target's centre lies inside"


def test_pairs_depend_on_seed_epoch_and_step_alone(stream):
    first = list(stream().batches(1))
    assert len(first) == stream().steps_per_epoch == 4
    again = stream()
    list(again.batches(0))
    assert all(map(equal, first, again.batches(1))), "what was read before does not matter"
    assert all(map(equal, first[2:], stream().batches(1, 2))), "nor where reading starts"
    others = [first[1], next(iter(stream().batches(0))), next(iter(stream(seed=2).batches(1)))]
    assert not any(equal(first[0], other) for other in others)


@pytest.mark.parametrize("world", [2, 4])
def test_pairs_depend_on_no_number_of_workers(stream, world):
    """Noise included, which is drawn for the whole batch."""
    whole = list(stream().batches(0))
    share = BATCH // world
    for rank in range(world):
        part = list(stream(rank=rank, world=world).batches(0))
        rows = slice(rank * share, (rank + 1) * share)
        assert all(equal(mine, all_, rows) for mine, all_ in zip(part, whole, strict=True))


def test_a_batch_that_workers_cannot_share_is_refused(stream):
    with pytest.raises(ConfigurationError, match="must be a multiple of 3 workers"):
        stream(world=3)


def extents(alpha):
    """Return cx, cy, w, h of a silhouette (S, S), to parts of a pixel by its soft edge."""
    box = []
    for axis in (0, 1):
        profile = alpha.max(axis=axis)
        covered = np.flatnonzero(profile > 127)
        low, high = covered[0], covered[-1] + 1
        box.append((0.5 * (low + high), high - low))
    return np.array([box[0][0], box[1][0], box[0][1], box[1][1]])


def test_composed_boxes_are_the_extents_of_the_rendered_silhouettes(config, resident):
    data = replace(config.data, overlay=replace(PLAIN, composed=1e9))
    draws = PairDraws(data, config.model, resident.groups, resident.things)
    views = draws.draw(np.random.default_rng(3), 64)
    sizes = (config.model.template_size, config.model.search_size)
    seen = 0
    for view, size in zip(views, sizes, strict=True):
        layer = view.layers[-1]
        assert layer.rows.tolist() == list(range(64)), "all pairs are composed"
        matrices = torch.from_numpy(layer.matrices)
        alpha = resident.cut_outs.crops(torch.from_numpy(layer.cut_outs), matrices, size)[..., 3]
        for silhouette, box in zip(alpha.numpy(), view.boxes_cxcywh * size, strict=True):
            corners = np.concatenate([box[:2] - box[2:] / 2, box[:2] + box[2:] / 2])
            if corners.min() < 1 or corners.max() > size - 1:
                continue  # part of it lies outside of the crop
            x, y, w, h = extents(silhouette)
            found = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
            assert np.abs(found - corners).max() <= 1, "every side within a pixel"
            seen += 1
    assert seen > 64


def test_a_pair_of_frames_has_its_boxes_where_the_target_is(config, resident):
    """The videos' targets are brighter than what is around them."""
    data = replace(config.data, overlay=PLAIN, flip=0.5, brightness=0.0, grayscale_prob=0.0)
    videos = ResidentStream(
        data,
        config.model,
        replace(resident, groups=resident.groups[:1], things=None),
        seed=0,
        batch_size=BATCH,
    )
    for batch in videos.batches(0):
        for template, box in zip(batch.template, batch.template_boxes_cxcywh, strict=True):
            size = config.model.template_size
            assert box[:2].tolist() == pytest.approx([0.5, 0.5])
            low, high = ((box[:2] - s * box[2:] / 2) * size for s in (1, -1))
            (x1, y1), (x2, y2) = low.round().int().tolist(), high.round().int().tolist()
            inside = template[:, y1 + 1 : y2 - 1, x1 + 1 : x2 - 1]
            assert inside.float().mean() > 180


def test_shares_follow_the_weights(config, resident):
    weighted = replace(resident.groups[0], weight=2.0)
    draws = PairDraws(
        replace(config.data, overlay=replace(PLAIN, composed=1.0)),
        config.model,
        (weighted, resident.groups[1]),
        resident.things,
    )
    template, search = draws.draw(np.random.default_rng(0), 2000)
    composed = len(template.layers[-1].rows) / 2000
    real = np.setdiff1d(np.arange(2000), template.layers[-1].rows)
    videos = (search.pictures[real] < 20).sum() / 2000
    assert composed == pytest.approx(0.25, abs=0.04)
    assert videos == pytest.approx(0.5, abs=0.04)


def test_frames_of_a_pair_are_at_most_a_gap_apart(config, resident):
    data = replace(config.data, max_gap=2, overlay=PLAIN)
    draws = PairDraws(data, config.model, resident.groups[:1], None)
    template, search = draws.draw(np.random.default_rng(0), 200)
    assert set(np.abs(template.pictures - search.pictures).tolist()) == {1, 2}

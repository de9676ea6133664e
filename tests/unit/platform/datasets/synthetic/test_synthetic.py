import json
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest

from dytrack_platform.datasets.readers import read
from dytrack_platform.datasets.synthetic import CHALLENGES, SynthConfig, make
from dytrack_platform.datasets.synthetic import maker as module
from dytrack_platform.datasets.synthetic.compose import compose
from dytrack_platform.datasets.synthetic.scene import draw
from dytrack_platform.errors import ConfigurationError, DataError, StorageError

PLAIN = replace(SynthConfig(), **dict.fromkeys(CHALLENGES, 0.0))
SMALL = replace(SynthConfig(), width=96, height=72, frames=(8, 10), target_side=(12.0, 24.0))


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@cache
def truth(config, seed=0):
    """Boxes, cover and brightness of every frame; the pixels themselves would fill the memory."""
    rng = np.random.default_rng(seed)
    rows = [(d.box_xywh, d.cover, d.pixels.mean()) for d in draw(compose(config, rng), rng)]
    return tuple(map(np.array, zip(*rows, strict=True)))


def only(challenge, **changes):
    return replace(PLAIN, **{challenge: 1.0}, **changes)


def test_made_sequences_are_read_as_got10k(tmp_path):
    make(tmp_path, SMALL, "train", 3, workers=1)
    sequences = list(read("got10k", str(tmp_path), "train"))
    assert [s.name for s in sequences] == ["train_000001", "train_000002", "train_000003"]
    for sequence in sequences:
        assert 8 <= len(sequence) <= 10
        assert sequence.visible[0]
        assert sequence.frames.read(0).shape == (72, 96, 3)
        assert sequence.attributes == tuple(sorted(sequence.attributes))


def test_the_files_depend_on_seed_and_split_and_not_on_the_processes(tmp_path):
    make(tmp_path / "one", SMALL, "train", 3, workers=1)
    make(tmp_path / "two", SMALL, "train", 3, workers=2)
    make(tmp_path / "test", SMALL, "test", 1, workers=1)
    make(tmp_path / "seed", replace(SMALL, seed=1), "train", 1, workers=1)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    first = (tmp_path / "one/train/train_000001/00000001.jpg").read_bytes()
    assert first != (tmp_path / "test/test/test_000001/00000001.jpg").read_bytes()
    assert first != (tmp_path / "seed/train/train_000001/00000001.jpg").read_bytes()


def test_making_goes_on_where_it_was_stopped(tmp_path):
    make(tmp_path / "whole", SMALL, "train", 3, workers=1)
    make(tmp_path / "again", SMALL, "train", 3, workers=1)
    (tmp_path / "again/train/list.txt").unlink()
    (tmp_path / "again/train/train_000002").rename(tmp_path / "aside")
    counts = []
    make(tmp_path / "again", SMALL, "train", 3, workers=1, progress=counts.append)
    assert counts == [3]
    assert content(tmp_path / "again") == content(tmp_path / "whole")


def test_another_configuration_in_the_same_folder_is_refused(tmp_path):
    make(tmp_path, SMALL, "train", 1, workers=1)
    with pytest.raises(DataError, match="holds sequences of another configuration"):
        make(tmp_path, replace(SMALL, seed=3), "train", 1, workers=1)


def test_a_full_disk_leaves_no_half_sequence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write_table", full)
    with pytest.raises(StorageError, match=r"train_000001: cannot be written \(No space left"):
        make(tmp_path, SMALL, "train", 1, workers=1)
    assert [p.name for p in (tmp_path / "train").iterdir()] == ["synthetic.json"]


def test_the_box_is_that_of_the_drawn_target():
    config = replace(PLAIN, grain=0.0)
    rng = np.random.default_rng(5)
    scene = compose(config, rng)
    bare = replace(scene, others=(), background=np.zeros_like(scene.background))
    scene.target.image[..., :3] = 255
    for drawn in draw(replace(bare, light=np.ones_like(bare.light)), rng):
        found = cv2.boundingRect((drawn.pixels[..., 0] > 127).astype(np.uint8))
        np.testing.assert_allclose(found, drawn.box_xywh, atol=1.0)


@pytest.mark.slow
def test_plain_sequences_stay_in_view_and_move_smoothly():
    for seed in range(10):
        boxes, cover, _ = truth(PLAIN, seed)
        centres, sizes = boxes[:, :2] + boxes[:, 2:] / 2, np.sqrt(boxes[:, 2] * boxes[:, 3])
        steps = np.abs(np.diff(centres, axis=0)).max(axis=1) / sizes[1:]
        assert cover.min() > 0.4
        assert np.quantile(steps, 0.9) < 0.5
        assert 15 < sizes.mean() < 100


def test_a_target_that_leaves_the_view_is_gone_and_comes_back():
    gone = [truth(only("leaving_view"), seed)[0][:, 2] == 0 for seed in range(6)]
    assert sum(bool(frames.any()) for frames in gone) >= 5
    assert not any(frames[0] for frames in gone)


def test_occlusion_hides_the_target_and_leaves_its_box():
    covers = []
    for seed in range(6):
        boxes, cover, _ = truth(only("occlusion"), seed)
        assert (boxes[:, 2] > 0).all()
        covers.append(cover.min())
    assert min(covers) < 0.4


@pytest.mark.parametrize(
    ("challenge", "measure"),
    [
        ("scale", lambda b: np.ptp(np.log(np.sqrt(b[:, 2] * b[:, 3])))),
        ("aspect", lambda b: np.ptp(np.log(b[:, 2] / b[:, 3]))),
        ("fast_motion", lambda b: np.abs(np.diff(b[:, :2] + b[:, 2:] / 2, axis=0)).mean()),
    ],
)
@pytest.mark.slow
def test_a_knob_makes_its_challenge_worse(challenge, measure):
    plain, hard = (
        np.mean([measure(truth(config, seed)[0]) for seed in range(6)])
        for config in (PLAIN, only(challenge))
    )
    assert hard > 1.4 * plain


def test_light_changes_where_it_was_asked_for():
    def spread(config):
        return np.mean([np.ptp(truth(config, s)[2]) for s in range(3)])

    assert spread(only("illumination")) > 1.5 * spread(PLAIN)


def test_challenges_are_written_by_their_codes(tmp_path):
    make(tmp_path, replace(SMALL, **dict.fromkeys(CHALLENGES, 1.0)), "train", 1, workers=1)
    written = json.loads((tmp_path / "train/train_000001/attributes.json").read_text())
    assert set(CHALLENGES.values()) <= set(written["attributes"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"occlusion": 1.5}, r"occlusion: must lie in \[0, 1\], got 1.5"),
        ({"frames": (9, 3)}, r"frames: must be a range from 2 up, got \(9, 3\)"),
        ({"target_side": (30.0, 900.0)}, "target_side: must be a range from 8 up to"),
        ({"width": 4}, r"width: must lie in \[32, 8192\], got 4"),
    ],
)
def test_a_wrong_knob_is_refused_by_name(change, message):
    with pytest.raises(ConfigurationError, match=message):
        SynthConfig(**change)


def test_backgrounds_and_objects_can_come_from_images(folder, tmp_path):
    for number, level in enumerate((40, 90, 140)):
        folder.image(f"{number}.jpg", level, size=(64, 48))
    config = replace(SMALL, images=str(folder), grain=0.0, illumination=0.0)
    make(tmp_path, config, "train", 1, workers=1)
    (sequence,) = read("got10k", str(tmp_path), "train")
    levels = np.unique(np.round(sequence.frames.read(0).mean(axis=2) / 10))
    assert len(levels) <= 20  # plain grey images, a little lighter or darker; no drawn texture
    assert np.ptp(sequence.frames.read(0).astype(int), axis=2).max() < 12


def test_objects_are_cut_from_the_boxes_of_coco_images(shared, tmp_path):
    config = replace(SMALL, images=str(shared / "data" / "coco"))
    make(tmp_path, config, "train", 2, workers=1)
    assert len(list(read("got10k", str(tmp_path), "train"))) == 2


def test_a_folder_without_images_is_refused(folder, tmp_path):
    config = replace(SMALL, images=str(folder))
    with pytest.raises(DataError, match="source: no such folder of images"):
        make(tmp_path, config, "train", 1, workers=1)
    folder.text("notes.txt", "no image")
    with pytest.raises(DataError, match="holds no image"):
        make(tmp_path, config, "train", 1, workers=1)


def test_images_that_do_not_decode_are_passed_over(folder, tmp_path):
    folder.data("0.jpg", b"damaged")
    folder.image("1.jpg", 90, size=(64, 48))
    make(tmp_path, replace(SMALL, images=str(folder)), "train", 1, workers=1)
    (folder.root / "1.jpg").unlink()
    make_again = replace(SMALL, images=str(folder), seed=5)
    with pytest.raises(DataError, match="do not decode; give another folder"):
        make(tmp_path / "b", make_again, "train", 1, workers=1)

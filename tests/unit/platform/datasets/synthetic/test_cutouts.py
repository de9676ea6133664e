"""Sequences of real things over real images."""

import shutil

import numpy as np
import pytest

from dytrack_platform.datasets import readers
from dytrack_platform.datasets.synthetic import SynthConfig, make
from dytrack_platform.datasets.synthetic.compose import compose
from dytrack_platform.datasets.synthetic.scene import draw
from dytrack_platform.errors import ConfigurationError, DataError


@pytest.fixture
def config(raw_folders):
    def make_config(**changes):
        values = {
            "cutouts": str(raw_folders / "cutouts"),
            "backgrounds": str(raw_folders / "coco"),
            "frames": (6, 6),
            "grain": 0.0,
            "occlusion": 0.0,
            "leaving_view": 0.0,
        }
        return SynthConfig(**{**values, **changes})

    return make_config


def test_the_target_is_a_real_thing_with_its_own_silhouette(config):
    scene = compose(config(), np.random.default_rng(0))
    alpha = scene.target.image[..., 3]
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    # The ellipse of the fixture is 73 wide and 100 high, its corner cut off.
    ratio = (columns[-1] - columns[0]) / (rows[-1] - rows[0])
    assert ratio == pytest.approx(73 / 100, abs=0.08)
    assert 0.5 < (alpha > 127).mean() / (ratio) < 0.9


def test_the_box_is_the_extent_of_what_is_drawn(config):
    rng = np.random.default_rng(1)
    frames = list(draw(compose(config(deformation=0.0), rng), rng))
    assert len(frames) == 6
    for frame in frames:
        x, y, w, h = frame.box_xywh
        assert w > 8
        assert h > 8
        assert 0 <= x <= 320 - w
        assert 0 <= y <= 240 - h


def test_a_seed_gives_the_same_files_and_another_seed_others(config, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        make(tmp_path / name, config(seed=seed), "val", 1, workers=1)
    first, again, other = (
        next(readers.read("got10k", str(tmp_path / name), "val")) for name in "abc"
    )
    assert np.array_equal(first.frames.read(2), again.frames.read(2))
    assert np.array_equal(first.boxes_xywh, again.boxes_xywh)
    assert not np.array_equal(first.boxes_xywh, other.boxes_xywh)


def test_things_from_cocos_masks_serve_as_well(config, raw_folders):
    made = config(cutouts=str(raw_folders / "coco"))
    assert compose(made, np.random.default_rng(0)).target is not None


def test_things_need_something_to_lie_over(raw_folders):
    with pytest.raises(ConfigurationError, match="cutouts: need"):
        SynthConfig(cutouts=str(raw_folders / "cutouts"))


def test_a_folder_without_things_is_named(config, tmp_path):
    (tmp_path / "index.json").write_text("[]")
    with pytest.raises(DataError, match="holds no thing with a silhouette"):
        compose(config(cutouts=str(tmp_path)), np.random.default_rng(0))


def test_a_folder_of_the_validation_part_alone_serves_for_both(config, raw_folders, tmp_path):
    # Things and pictures that training never saw: what a check of its own is made of.
    kept = tmp_path / "val"
    shutil.copytree(raw_folders / "coco", kept)
    annotations = kept / "annotations"
    (annotations / "instances_train2017.json").rename(annotations / "instances_val2017.json")
    (kept / "train2017").rename(kept / "val2017")
    made = config(cutouts=str(kept), backgrounds=str(kept))
    assert compose(made, np.random.default_rng(0)).target is not None


@pytest.mark.parametrize("workers", [1, 2])
def test_a_refused_folder_leaves_nothing_behind(config, tmp_path, workers):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "index.json").write_text("[]")
    with pytest.raises(DataError, match="holds no thing with a silhouette"):
        make(tmp_path / "made", config(cutouts=str(empty)), "val", 2, workers=workers)
    assert not list((tmp_path / "made" / "val").iterdir())
    # ... so that the next try, with another folder, is not refused as another configuration.
    make(tmp_path / "made", config(), "val", 1, workers=1)
    assert len(list(readers.read("got10k", str(tmp_path / "made"), "val"))) == 1

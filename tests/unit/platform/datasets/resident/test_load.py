"""Which pictures and targets a raw folder brings into memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dytrack_platform.config.schema import DataConfig, ResidentSource
from dytrack_platform.datasets.resident.load import load, wanted
from dytrack_platform.errors import DataError

CPU = torch.device("cpu")


def rooted(data):
    """Put the sources' folders below ``data.root``, as training does."""
    sources = tuple(replace(s, root=f"{data.root}/{s.root}") for s in data.resident)
    return replace(data, resident=sources)


@pytest.fixture
def config(resident_recipe):
    return resident_recipe()


@pytest.fixture
def resident(config):
    return load(rooted(config.data), config.model, CPU)


def test_every_picture_is_there_once(resident):
    assert len(resident.pictures) == 2 * 10 + 2
    assert resident.pictures.pixels.shape[1] == 3
    assert resident.cut_outs.pixels.shape[1] == 4
    assert len(resident.cut_outs) == 2 + 1


def test_frames_without_their_target_are_no_shots(resident):
    videos, stills = resident.groups
    assert [shots.name for shots in videos.targets] == ["video/one", "video/two"]
    assert videos.targets[0].numbers.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert videos.targets[0].boxes_xywh[0].tolist() == [20, 30, 30, 24]
    assert [len(shots.numbers) for shots in stills.targets] == [1, 1]
    assert videos.chances.sum() == stills.chances.sum() == 1


def test_a_large_picture_is_made_smaller_with_its_boxes(config):
    source = replace(rooted(config.data).resident[0], longest_side=80)
    resident = load(DataConfig(resident=(source,)), config.model, CPU)
    assert set(resident.pictures.widths.tolist()) == {80}
    assert set(resident.pictures.heights.tolist()) == {60}
    assert resident.groups[0].targets[0].boxes_xywh[0].tolist() == [10, 15, 15, 12]


def test_names_pass_by_patterns(config):
    source = rooted(config.data).resident[0]
    for patterns, names in (
        ({"include": ("t*",)}, ["two"]),
        ({"exclude": ("t*",)}, ["one"]),
        ({}, ["one", "two"]),
    ):
        assert [s.name for s in wanted(replace(source, **patterns))] == names
    with pytest.raises(DataError, match="no sequence of split 'train' passes"):
        wanted(replace(source, include=("four",)))


def test_things_alone_are_not_enough(raw_folders, config):
    source = ResidentSource(dataset="cutouts", root=str(raw_folders / "cutouts"))
    with pytest.raises(DataError, match="no folder with frames or pictures"):
        load(DataConfig(resident=(source,)), config.model, CPU)


def test_things_are_composed_over_pictures_that_are_large_enough(resident, config):
    things = resident.things
    assert (things.ground_sizes.min(axis=1) >= config.model.search_size // 2).all()
    assert np.isclose(things.chances.sum(), 1)
    assert len(set(things.kinds.tolist())) == 3

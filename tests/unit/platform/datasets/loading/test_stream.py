import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dytrack_model.config import variant
from dytrack_platform.config import DataConfig, SourceConfig
from dytrack_platform.datasets.loading.stream import PairStream
from dytrack_platform.datasets.prepared import preparation as module
from dytrack_platform.datasets.prepared.preparation import finish, plan_preparation
from dytrack_platform.datasets.prepared.shards import write_shard
from dytrack_platform.datasets.prepared.windows import ClipConfig
from dytrack_platform.errors import ConfigurationError, DataError

MODEL = variant("test")
CLIPS = ClipConfig(frames=4, span=40, search_size=128, sequences_per_shard=3)


def prepared(monkeypatch, sequences, out, config=CLIPS, split="train", dataset="made"):
    monkeypatch.setattr(module.readers, "read", lambda *_: iter(sequences))
    preparation = plan_preparation(dataset, "anywhere", split, str(out), config)
    return finish(preparation, {job.file: write_shard(job) for job in preparation.jobs}).folder


@pytest.fixture
def clips(moving, monkeypatch, tmp_path):
    return prepared(monkeypatch, [moving(f"seq{i}", frames=30) for i in range(12)], tmp_path)


@pytest.fixture
def data(clips):
    return DataConfig(
        train=(SourceConfig(path=clips),),
        pairs_per_epoch=48,
        validation_pairs=16,
        pairs_per_clip=3,
        validation_share=0.3,
    )


def stream(data, **options):
    return PairStream(data, MODEL, **{"seed": 7, "batch_size": 8, **options})


def same(first, second):
    return (
        torch.equal(first.template, second.template)
        and torch.equal(first.search, second.search)
        and torch.equal(first.boxes_cxcywh, second.boxes_cxcywh)
        and first.sequences == second.sequences
    )


def test_batches_have_the_shapes_that_the_network_takes(data):
    batches = list(stream(data).batches(0))
    assert len(batches) == stream(data).steps_per_epoch == 6
    for batch in batches:
        assert batch.template.shape == (8, 3, 64, 64)
        assert batch.search.shape == (8, 3, 128, 128)
        assert batch.template.dtype == batch.search.dtype == torch.uint8
        assert batch.boxes_cxcywh.shape == (8, 4)
        assert batch.boxes_cxcywh.dtype == torch.float32
        assert (batch.boxes_cxcywh[:, :2] >= 0).all()
        assert (batch.boxes_cxcywh[:, :2] <= 1).all()
        assert (batch.boxes_cxcywh[:, 2:] > 0).all()


def test_the_same_seed_gives_the_same_pairs_and_another_epoch_others(data):
    first, again = list(stream(data).batches(2)), list(stream(data).batches(2))
    assert all(map(same, first, again))
    assert not same(first[0], next(stream(data).batches(3)))
    assert not same(first[0], next(stream(data, seed=8).batches(2)))


@pytest.mark.parametrize("start", [1, 2, 3, 5, 6])
def test_a_stream_resumes_at_any_step(data, start):
    whole = list(stream(data).batches(1))
    rest = list(stream(data).batches(1, start))
    assert len(rest) == len(whole) - start
    assert all(map(same, whole[start:], rest))


@pytest.mark.parametrize("world", [2, 4])
def test_workers_together_see_the_pairs_that_one_worker_sees(data, world):
    alone = list(stream(data).batches(1))
    parts = [list(stream(data, rank=rank, world=world).batches(1)) for rank in range(world)]
    for step, whole in enumerate(alone):
        assert torch.equal(whole.search, torch.cat([part[step].search for part in parts]))
        assert torch.equal(
            whole.boxes_cxcywh, torch.cat([part[step].boxes_cxcywh for part in parts])
        )


def test_every_clip_is_shown_before_one_is_shown_again(data):
    seen = [name for batch in stream(data).batches(0) for name in batch.sequences]
    counts = np.unique(seen, return_counts=True)[1]
    assert counts.max() - counts.min() <= data.pairs_per_clip


def test_validation_sequences_are_never_trained_on_and_are_always_the_same(data):
    trained = {n for e in range(3) for b in stream(data).batches(e) for n in b.sequences}
    validation = [list(stream(data, subset="validation").batches(epoch)) for epoch in (0, 5)]
    assert all(map(same, *validation))
    held = {name for batch in validation[0] for name in batch.sequences}
    assert held
    assert not held & trained


def test_folders_of_validation_clips_are_used_instead_of_a_share(
    data, moving, monkeypatch, tmp_path
):
    other = prepared(monkeypatch, [moving("v", frames=20)], tmp_path, split="val")
    data = replace(data, validation=(SourceConfig(path=other),))
    assert set(next(stream(data, subset="validation").batches(0)).sequences) == {"made/v"}
    trained = {name for batch in stream(data).batches(0) for name in batch.sequences}
    assert len(trained) == 12


def test_folders_are_mixed_by_weight(data, moving, monkeypatch, tmp_path):
    sequences = [moving(f"other{i}", frames=20) for i in range(6)]
    other = prepared(monkeypatch, sequences, tmp_path, dataset="second")
    sources = (*data.train, SourceConfig(path=other, weight=3.0))
    data = replace(data, train=sources, pairs_per_epoch=960)
    names = [name for batch in stream(data).batches(0) for name in batch.sequences]
    share = np.mean([name.startswith("second/") for name in names])
    assert 0.65 < share < 0.85


def test_a_still_image_is_paired_with_itself(moving, monkeypatch, tmp_path):
    stills = [moving(f"still{i}#1", frames=1) for i in range(4)]
    folder = prepared(monkeypatch, stills, tmp_path)
    data = DataConfig(train=(SourceConfig(path=folder),), pairs_per_epoch=8)
    assert len(list(stream(data).batches(0))) == 1


def test_the_target_lies_where_the_box_says(moving, monkeypatch, tmp_path):
    """A white target on black: the box of the search crop must hold the white."""
    sequences = [moving(f"white{i}", frames=20, step=0.0) for i in range(3)]
    for sequence in sequences:
        x, y, w, h = sequence.boxes_xywh[0].astype(int)
        for image in sequence.frames.images:
            image[:] = 0
            image[y : y + h, x : x + w] = 255
    folder = prepared(monkeypatch, sequences, tmp_path)
    data = DataConfig(train=(SourceConfig(path=folder),), pairs_per_epoch=64, grayscale_prob=0.5)
    for batch in stream(data).batches(0):
        for search, box in zip(batch.search.numpy(), batch.boxes_cxcywh.numpy(), strict=True):
            rows, columns = np.nonzero(search[0] > 100)
            cx, cy, w, h = box * 128
            low, high = (max(0, cx - w / 2), max(0, cy - h / 2)), (cx + w / 2, cy + h / 2)
            assert abs(columns.min() - low[0]) < 3
            assert abs(rows.min() - low[1]) < 3
            assert abs(columns.max() + 1 - min(128, high[0])) < 3
            assert abs(rows.max() + 1 - min(128, high[1])) < 3


def test_clips_prepared_for_less_jitter_are_refused(data):
    with pytest.raises(ConfigurationError, match=r"data\.centre_jitter: .* prepare it again"):
        stream(replace(data, centre_jitter=4.5))


def test_a_folder_that_is_missing_or_not_prepared_is_named(data, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: holds no prepared clips"):
        stream(replace(data, train=(SourceConfig(path=str(tmp_path / "empty")),)))
    with pytest.raises(DataError, match="none: no such folder; make it with dytrack prepare"):
        stream(replace(data, train=(SourceConfig(path=str(tmp_path / "none")),)))
    with pytest.raises(ConfigurationError, match=r"data\.train: must name at least one"):
        stream(replace(data, train=()))


def test_the_root_of_one_split_can_be_named_and_that_of_two_cannot(
    data, moving, monkeypatch, tmp_path
):
    root = replace(data, train=(SourceConfig(path=str(tmp_path)),))
    assert same(next(stream(root).batches(0)), next(stream(data).batches(0)))
    prepared(monkeypatch, [moving("v", frames=20)], tmp_path, split="val")
    with pytest.raises(DataError, match="holds the splits train, val; name one of the folders"):
        stream(root)


def test_a_preparation_that_was_not_finished_is_refused(data, moving, monkeypatch, tmp_path):
    monkeypatch.setattr(module.readers, "read", lambda *_: iter([moving("a")]))
    plan_preparation("made", "anywhere", "half", str(tmp_path / "x"), CLIPS)
    half = tmp_path / "x/dataset=made/split=half"
    with pytest.raises(DataError, match="was not finished; run dytrack prepare again"):
        stream(replace(data, train=(SourceConfig(path=str(half)),)))


def test_one_sequence_cannot_be_split(moving, monkeypatch, tmp_path):
    folder = prepared(monkeypatch, [moving("alone")], tmp_path)
    with pytest.raises(DataError, match=r"name a folder in data\.validation"):
        stream(DataConfig(train=(SourceConfig(path=folder),)))


def test_a_batch_that_does_not_divide_is_refused(data):
    with pytest.raises(ConfigurationError, match="must be a multiple of 3 workers, got 8"):
        stream(data, world=3)


def test_a_file_damaged_after_opening_ends_the_stream_with_its_name(data, clips):
    opened = stream(data)
    for path in Path(clips).glob("part-*.parquet"):
        path.write_bytes(b"gone")
    with pytest.raises(DataError, match=r"part-\d+\.parquet: is missing or is not Parquet"):
        list(opened.batches(0))


def threads():
    return [t for t in threading.enumerate() if t.name.startswith(("pairs", "crops"))]


def test_closing_or_forgetting_a_stream_ends_its_threads(data):
    opened = stream(replace(data, loader_workers=2))
    next(opened.batches(0))
    assert threads()
    opened.close()
    next(opened.batches(1))
    del opened
    assert threads() == []


def test_a_stream_that_was_left_early_goes_on_from_there(data):
    opened, whole = stream(data), list(stream(data).batches(0))
    assert same(next(opened.batches(0)), whole[0])
    assert all(map(same, opened.batches(0, 1), whole[1:]))


def test_the_next_epoch_is_the_same_whether_it_was_made_ahead_or_not(data):
    opened = stream(data)
    list(opened.batches(0))
    assert all(map(same, opened.batches(1), stream(data).batches(1)))
    assert list(opened.batches(1, opened.steps_per_epoch)) == []


def test_reading_two_epochs_at_once_is_refused(data):
    opened = stream(data)
    first = opened.batches(0)
    next(first)
    next(opened.batches(3))
    with pytest.raises(RuntimeError, match="was started again or closed"):
        next(first)


def test_without_loader_workers_no_thread_is_started(data):
    opened = stream(replace(data, loader_workers=0))
    batches = opened.batches(0)
    first = next(batches)
    assert threads() == []
    assert same(first, next(iter(stream(data).batches(0))))
    opened.close()
    with pytest.raises(RuntimeError, match="closed while it was being read"):
        next(batches)


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_pairs_do_not_depend_on_the_number_of_threads(data, threads):
    threaded = stream(replace(data, loader_workers=threads))
    assert all(map(same, threaded.batches(1), stream(data).batches(1)))

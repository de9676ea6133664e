import json
from dataclasses import replace

import numpy as np
import pytest

from dytrack_platform.datasets.prepared import preparation as module
from dytrack_platform.datasets.prepared import statistics
from dytrack_platform.datasets.prepared.manifest import read_manifest
from dytrack_platform.datasets.prepared.preparation import finish, plan_preparation
from dytrack_platform.datasets.prepared.shards import ShardReader, read_summary, write_shard
from dytrack_platform.datasets.prepared.windows import ClipConfig
from dytrack_platform.datasets.sequence import Fault
from dytrack_platform.errors import DataError
from dytrack_platform.storage.tree import Tree

CONFIG = ClipConfig(frames=4, span=20, search_size=64, sequences_per_shard=3)


@pytest.fixture
def source(moving, monkeypatch):
    """Ten sequences in memory that stand for a dataset on disk."""
    sequences = {f"seq{i}": moving(f"seq{i}", frames=20 + i) for i in range(10)}

    def read(dataset, root, split, faults):
        for name, sequence in sequences.items():
            if sequence is None:
                reason = "cannot be used"
                faults.append(Fault(dataset=dataset, sequence=name, frame=None, reason=reason))
            else:
                yield sequence

    monkeypatch.setattr(module.readers, "read", read)
    return sequences


def prepare(out, config=CONFIG, **options):
    preparation = plan_preparation("made", "anywhere", "train", str(out), config, **options)
    return finish(preparation, {job.file: write_shard(job) for job in preparation.missing})


def content(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(folder):
    """Everything stored of each sequence, whatever the shard."""
    found = {}
    for path in sorted(folder.rglob("part-*.parquet")):
        tree = Tree(str(path.parent))
        for number, row in enumerate(read_summary(tree, path.name).rows):
            clip = ShardReader(tree).read(path.name, number)
            found[row.sequence, row.clip] = (
                clip.frames.tolist(),
                clip.jpegs,
                clip.boxes_xywh.tolist(),
                clip.visible.tolist(),
            )
    return found


def test_a_prepared_folder_says_what_it_holds(source, tmp_path):
    done = prepare(tmp_path)
    folder = tmp_path / "dataset=made" / "split=train"
    assert done.folder == str(folder)
    assert (done.sequences, done.clips, done.rejects) == (10, 19, 0)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["complete"]
    assert manifest["schema_version"] == 2
    assert manifest["configuration"]["search_size"] == 64
    assert manifest["clips"] == len(rows(folder)) == 19
    assert (folder / "rejects.jsonl").read_text() == ""


def test_a_row_holds_a_clip(source, tmp_path):
    prepare(tmp_path)
    frames, jpegs, boxes, visible = rows(tmp_path)["seq0", 0]
    assert frames == [0, 5, 10, 15]
    assert visible == [True] * 4
    assert all(jpeg[:2] == b"\xff\xd8" for jpeg in jpegs)
    assert all(w * h > 0 for _, _, w, h in boxes)


def test_preparing_again_writes_nothing_and_gives_the_same_bytes(source, tmp_path):
    prepare(tmp_path)
    before = content(tmp_path)
    preparation = plan_preparation("made", "anywhere", "train", str(tmp_path), CONFIG)
    assert preparation.missing == ()
    finish(preparation, {})
    assert content(tmp_path) == before


def test_preparing_goes_on_where_it_was_stopped(source, tmp_path):
    prepare(tmp_path / "clean")
    plan = plan_preparation("made", "anywhere", "train", str(tmp_path / "killed"), CONFIG)
    write_shard(plan.jobs[1])
    (tmp_path / "killed/dataset=made/split=train/.part-00000.parquet.x.unfinished").write_bytes(
        b"x"
    )
    again = plan_preparation("made", "anywhere", "train", str(tmp_path / "killed"), CONFIG)
    assert [job.file for job in again.missing] == [
        job.file for job in plan.jobs if job is not plan.jobs[1]
    ]
    finish(again, {job.file: write_shard(job) for job in again.missing})
    visible = {k: v for k, v in content(tmp_path / "killed").items() if not k.startswith(".")}
    assert visible == content(tmp_path / "clean")


def test_a_damaged_shard_is_written_anew(source, tmp_path):
    prepare(tmp_path)
    before = content(tmp_path)
    shard = next(tmp_path.rglob("part-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-20])
    prepare(tmp_path)
    assert content(tmp_path) == before


def test_a_sequence_that_cannot_be_used_leaves_the_other_rows_as_they_are(source, tmp_path):
    prepare(tmp_path / "clean")
    source["seq3"] = None
    source["seq5"].frames.broken = {0}
    done = prepare(tmp_path / "damaged")
    clean, damaged = rows(tmp_path / "clean"), rows(tmp_path / "damaged")
    touched = {key for key in clean if key[0] in ("seq3", "seq5")}
    assert {k: v for k, v in clean.items() if k not in touched} == {
        k: v for k, v in damaged.items() if k not in touched
    }
    listed = (tmp_path / "damaged/dataset=made/split=train/rejects.jsonl").read_text().splitlines()
    assert [(r["sequence"], r["frame"]) for r in map(json.loads, listed)] == [
        ("seq3", None),
        ("seq5", 0),
    ]
    assert done.rejects == 2


def test_a_target_that_is_never_visible_is_rejected(source, tmp_path):
    source["seq1"].visible[:] = False
    assert prepare(tmp_path).rejects == 1
    rejects = (tmp_path / "dataset=made/split=train/rejects.jsonl").read_text()
    assert "the target is never visible" in rejects


def test_small_targets_can_be_left_out(source, tmp_path):
    source["seq2"].boxes_xywh[:, 3] = 3.0
    assert prepare(tmp_path, replace(CONFIG, smallest_side=10.0)).sequences == 9
    manifest = read_manifest(Tree(str(tmp_path / "dataset=made/split=train")))
    assert manifest["sequences_too_small"] == 1


def test_clips_of_another_configuration_are_not_mixed_in(source, tmp_path):
    prepare(tmp_path)
    other = replace(CONFIG, quality=50)
    with pytest.raises(DataError, match=r"another configuration: quality 90 \(now 50\)"):
        prepare(tmp_path, other)
    assert prepare(tmp_path, other, fresh=True).clips == 19


def test_shards_of_a_source_that_shrank_are_removed(source, tmp_path):
    prepare(tmp_path)
    for name in list(source)[3:]:
        del source[name]
    done = prepare(tmp_path)
    assert done.sequences == 3
    assert {key[0] for key in rows(tmp_path)} == {"seq0", "seq1", "seq2"}


def test_boxes_that_changed_are_noticed(source, tmp_path):
    prepare(tmp_path)
    source["seq4"].boxes_xywh[:, 0] += 1
    preparation = plan_preparation("made", "anywhere", "train", str(tmp_path), CONFIG)
    assert len(preparation.missing) == 1


@pytest.mark.parametrize("content", ["{}", "[1]", "not json", '{"schema_version": "x"}'])
def test_a_file_that_is_no_manifest_is_refused(source, tmp_path, content):
    prepare(tmp_path)
    (tmp_path / "dataset=made/split=train/manifest.json").write_text(content)
    with pytest.raises(DataError, match=r"manifest\.json: is not a manifest of prepared clips"):
        prepare(tmp_path)


def test_a_manifest_of_a_newer_program_is_refused_and_left_alone(source, tmp_path):
    prepare(tmp_path)
    path = tmp_path / "dataset=made/split=train/manifest.json"
    path.write_text(path.read_text().replace('"schema_version": 2', '"schema_version": 3'))
    before = content(tmp_path)
    with pytest.raises(DataError, match="has schema version 3, this program knows up to 2"):
        prepare(tmp_path)
    assert content(tmp_path) == before


@pytest.mark.parametrize("split", ["../x", "a/b", ".hidden", "a b"])
def test_a_split_that_cannot_be_a_folder_is_refused(source, tmp_path, split):
    with pytest.raises(DataError, match="must be letters, digits"):
        plan_preparation("made", "anywhere", split, str(tmp_path), CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_two_preparations_at_once_give_what_one_gives(source, tmp_path):
    prepare(tmp_path / "alone")
    first = plan_preparation("made", "anywhere", "train", str(tmp_path / "two"), CONFIG)
    second = plan_preparation("made", "anywhere", "train", str(tmp_path / "two"), CONFIG)
    written = {}
    for one, other in zip(first.jobs, second.jobs, strict=True):
        written[one.file] = write_shard(one)
        assert write_shard(other) == written[one.file]
    finish(first, written)
    finish(second, written)
    assert content(tmp_path / "two") == content(tmp_path / "alone")


def test_a_folder_that_is_not_local_can_be_prepared_into(source, tmp_path):
    prepare(tmp_path)
    root = f"memory://{tmp_path.name}"
    done = prepare(root)
    tree = Tree(done.folder)
    here = content(tmp_path)
    assert {name: tree.read_bytes(name) for name in tree.names()} == here
    clip = ShardReader(tree).read(next(n for n in tree.names() if n.startswith("part")), 0)
    assert np.isfinite(clip.boxes_xywh).all()


def test_the_frames_boxes_can_be_had_back_from_a_clip(source, tmp_path):
    prepare(tmp_path)
    tree = Tree(str(tmp_path / "dataset=made/split=train"))
    for file in (name for name in tree.names() if name.startswith("part-")):
        for number, row in enumerate(read_summary(tree, file).rows):
            clip = ShardReader(tree).read(file, number)
            boxes = clip.boxes_xywh / clip.scales[:, None]
            boxes[:, :2] += clip.origins_xy
            truth = source[row.sequence].boxes_xywh[clip.frames]
            np.testing.assert_allclose(boxes, truth, atol=0.01)


def test_shards_of_the_first_version_are_still_read(source, tmp_path, monkeypatch):
    import pyarrow as pa

    from dytrack_platform.datasets.prepared import shards

    names = [field.name for field in shards.SCHEMA if field.name != "origins"]
    older = pa.schema([shards.SCHEMA.field(name) for name in names])
    monkeypatch.setattr(shards, "SCHEMA", older)
    prepare(tmp_path)
    tree = Tree(str(tmp_path / "dataset=made/split=train"))
    clip = ShardReader(tree).read(next(n for n in tree.names() if n.startswith("part-")), 0)
    assert clip.origins_xy is None
    assert statistics.of_partition(tree).frames > 0


def test_a_source_of_few_sequences_still_gives_every_core_a_shard(source, tmp_path):
    for number in range(10, 64):
        source[f"seq{number}"] = source["seq0"]
    names = {name: replace(s, name=name) for name, s in source.items()}
    source.update(names)
    plan = plan_preparation(
        "made", "x", "train", str(tmp_path), replace(CONFIG, sequences_per_shard=0)
    )
    assert len(plan.jobs) > 8

"""A source with a few damaged files: every one is listed, and nothing else changes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dytrack_platform.datasets.prepared.preparation import finish, plan_preparation
from dytrack_platform.datasets.prepared.shards import ShardReader, read_summary, write_shard
from dytrack_platform.datasets.prepared.windows import ClipConfig
from dytrack_platform.storage.tree import Tree

SEQUENCES, FRAMES = 8, 25
CLIPS = ClipConfig(frames=FRAMES, span=FRAMES, search_size=16)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole") / "source"
    rng = np.random.default_rng(0)
    names = [f"s{number}" for number in range(SEQUENCES)]
    for name in names:
        for frame in range(1, FRAMES + 1):
            path = root / "train" / name / f"{frame:08d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(noise(rng))
        rows = [f"{4 + i % 3},5,9.5,8" for i in range(FRAMES)]
        (root / "train" / name / "groundtruth.txt").write_text("\n".join(rows))
    (root / "train" / "list.txt").write_text("\n".join(names))
    return root


def noise(rng):
    import cv2

    return cv2.imencode(".jpg", rng.integers(0, 255, (24, 32, 3), np.uint8))[1].tobytes()


def damage(root, rng):
    """Spoil some frames and rows; return each with what the rejects table must say of it."""
    expected = {}
    places = rng.choice(SEQUENCES * FRAMES, size=5, replace=False)
    for kind, place in enumerate(places.tolist()):
        name, frame = f"s{place // FRAMES}", place % FRAMES
        path = root / "train" / name / f"{frame + 1:08d}.jpg"
        if kind == 0:
            path.write_bytes(path.read_bytes()[: int(rng.integers(1, 600))])
        elif kind == 1:
            path.write_bytes(b"")
        elif kind == 2:
            path.rename(path.with_suffix(".txt"))
        elif kind == 3:
            path.write_bytes(bytes(path.stat().st_size))
        else:
            truth = path.parent / "groundtruth.txt"
            rows = truth.read_text().splitlines()
            rows[frame] = str(
                rng.choice(["nan,nan,nan,nan", "4,5,0,8", "4,5,8", "four", "4,5,-8,8"])
            )
            truth.write_text("\r\n".join(rows))
        # A last frame that is gone shows as a sequence with one box too many.
        is_last = kind == 2 and frame == FRAMES - 1
        expected[name, frame] = (name, None if is_last else frame)
    return expected


def prepare(root, out):
    plan = plan_preparation("got10k", str(root), "train", str(out), CLIPS)
    return finish(plan, {job.file: write_shard(job) for job in plan.missing})


def stored(folder):
    """Return the window of every frame of every sequence."""
    tree = Tree(folder)
    frames = {}
    for file in (name for name in tree.names() if name.startswith("part-")):
        for number, row in enumerate(read_summary(tree, file).rows):
            clip = ShardReader(tree).read(file, number)
            for index, frame in enumerate(clip.frames.tolist()):
                window = clip.jpegs[index], clip.boxes_xywh[index].tolist(), clip.visible[index]
                frames[row.sequence, frame] = window
    return frames


@pytest.mark.parametrize("seed", range(10))
def test_damage_is_listed_exactly_and_the_rest_is_byte_identical(source, tmp_path, seed):
    clean = prepare(source, tmp_path / "clean")
    shutil.copytree(source, tmp_path / "source")
    expected = damage(tmp_path / "source", np.random.default_rng(seed))
    done = prepare(tmp_path / "source", tmp_path / "out")
    rows = map(json.loads, Path(done.folder, "rejects.jsonl").read_text().splitlines())
    assert {(row["sequence"], row["frame"]) for row in rows} == set(expected.values())
    assert done.rejects == len(expected)
    before, after = stored(clean.folder), stored(done.folder)
    assert len(before) == SEQUENCES * FRAMES
    assert {k: v for k, v in after.items() if k not in expected} == {
        k: v for k, v in before.items() if k not in expected
    }


def cut(path):
    path.write_bytes(path.read_bytes()[:-30])


def flip_a_label(path):
    path.write_text("0\nx\n")


@pytest.mark.parametrize(
    ("file", "spoil", "reason"),
    [
        ("groundtruth.txt", lambda path: path.write_bytes(b""), "holds no box"),
        ("groundtruth.txt", lambda path: path.unlink(), "cannot be read"),
        ("groundtruth.txt", lambda path: path.write_bytes(bytes(200)), "never visible"),
        ("groundtruth.txt", lambda path: path.write_text("4,5,9,8\n"), "1 boxes for 25 frames"),
        ("groundtruth.txt", cut, "boxes for"),
        ("absence.label", flip_a_label, "labels must be whole numbers"),
        ("cover.label", lambda path: path.write_bytes(b"\xff\xfe\0"), "must be whole numbers"),
        ("attributes.json", lambda path: path.write_text("[1"), "must hold a list 'attributes'"),
    ],
)
def test_damage_to_an_annotation_file_costs_its_sequence_alone(
    source, tmp_path, file, spoil, reason
):
    clean = prepare(source, tmp_path / "clean")
    shutil.copytree(source, tmp_path / "source")
    path = tmp_path / "source/train/s3" / file
    if not path.exists():
        path.write_text("0\n" * FRAMES)
    spoil(path)
    done = prepare(tmp_path / "source", tmp_path / "out")
    rows = list(map(json.loads, Path(done.folder, "rejects.jsonl").read_text().splitlines()))
    assert {row["sequence"] for row in rows} == {"s3"}
    assert any(reason in row["reason"] for row in rows)
    before, after = stored(clean.folder), stored(done.folder)
    others = {key: value for key, value in before.items() if key[0] != "s3"}
    assert {key: value for key, value in after.items() if key[0] != "s3"} == others

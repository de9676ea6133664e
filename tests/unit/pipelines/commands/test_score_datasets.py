"""A dataset read with its images scores like its annotations alone, and like its toolkit."""

import json

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from dytrack_pipelines.commands.score import score
from dytrack_platform.errors import ResultError
from dytrack_platform.evaluation.scoring.result_files import format_boxes

FRAMES = 12
SIZE = (96, 64)


def boxes_of(seed):
    """Boxes that wander, some of them over the image's border."""
    rng = np.random.default_rng(seed)
    corner = np.cumsum(rng.normal(0, 4, (FRAMES, 2)), axis=0) + np.array([70, 40])
    return np.column_stack([corner, rng.uniform(10, 30, (FRAMES, 2))]).round(4)


def images(folder, pattern):
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(FRAMES):
        cv2.imwrite(str(folder / pattern.format(k + 1)), np.zeros((SIZE[1], SIZE[0], 3), np.uint8))


def flags(values):
    return "".join(f"{value}\n" for value in values)


def lasot(root):
    """Absent frames keep a box in one sequence and have none in the other."""
    for name, seed in (("car-1", 1), ("car-2", 2)):
        folder = root / "car" / name
        images(folder / "img", "{:08d}.jpg")
        boxes = boxes_of(seed)
        boxes[5] = (0, 0, 0, 0) if name == "car-1" else boxes[5]
        boxes[8, 3] = -11  # as in tiger-6, visible and without an area
        (folder / "groundtruth.txt").write_text(format_boxes(boxes))
        (folder / "full_occlusion.txt").write_text("0,0,0,0,0,1,0,0,0,0,0,0")
        (folder / "out_of_view.txt").write_text("0,0,0,0,0,0,1,0,0,0,0,0")
    (root / "testing_set.txt").write_text("car-1\ncar-2")
    return root, ("--split", "test")


def got10k(root):
    """Cover and absence disagree: only cover counts."""
    names = ("GOT-10k_Val_000001", "GOT-10k_Val_000002")
    for seed, name in enumerate(names):
        folder = root / "val" / name
        images(folder, "{:08d}.jpg")
        (folder / "groundtruth.txt").write_text(format_boxes(boxes_of(seed)))
        (folder / "absence.label").write_text(flags([0, 0, 0, 1, *[0] * 8]))
        (folder / "cover.label").write_text(flags([8, 8, 8, 3, 0, *[8] * 7]))
        about = f"[METAINFO]\nobject_class: thing{seed}\nresolution: {SIZE}\n"
        (folder / "meta_info.ini").write_text(about)
    (root / "val" / "list.txt").write_text("\n".join(names) + "\n")
    return root / "val", ("--split", "val")


def uav123(root):
    """Rows of NaN are failures in success and correct in precision."""
    for name, seed in (("bike1", 3), ("boat2", 4)):
        images(root / "data_seq" / "UAV123" / name, "{:06d}.jpg")
        boxes = boxes_of(seed)
        boxes[4] = np.nan
        path = root / "anno" / "UAV123" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(format_boxes(boxes))
    return root / "anno" / "UAV123", ()


CASES = {
    "lasot-matlab": ("lasot", lasot),
    "pytracking-lasot": ("lasot", lasot),
    "got10k": ("got10k", got10k),
    "pytracking-uav": ("uav123", uav123),
    "got10k-uav123": ("uav123", uav123),
}


@pytest.fixture
def call():
    app = typer.Typer()
    app.command()(score)

    def run(*words):
        done = CliRunner().invoke(app, [str(word) for word in words])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    return run


@pytest.mark.parametrize("protocol", list(CASES))
def test_a_dataset_scores_like_its_annotations(call, tmp_path, protocol):
    dataset, make = CASES[protocol]
    annotations, split = make(tmp_path / dataset)
    rng = np.random.default_rng(0)
    for path in annotations.rglob("groundtruth.txt" if dataset != "uav123" else "*.txt"):
        name = path.parent.name if dataset != "uav123" else path.stem
        truth = np.loadtxt(path, delimiter=",")
        found = np.nan_to_num(truth, nan=30) + rng.normal(0, 3, truth.shape)
        found[:, 2:] = found[:, 2:].clip(2)
        (tmp_path / "results" / "T").mkdir(parents=True, exist_ok=True)
        (tmp_path / "results" / "T" / f"{name}.txt").write_text(format_boxes(found))
    common = ("--protocol", protocol, "--results", tmp_path / "results")
    call(*common, "--annotations", annotations, "--json-file", tmp_path / "a.json")
    whole = (*common, "--dataset", dataset, "--root", tmp_path / dataset, *split)
    call(*whole, "--json-file", tmp_path / "b.json")
    alone, read = (json.loads((tmp_path / f"{x}.json").read_text()) for x in "ab")
    assert alone["trackers"] == read["trackers"]
    assert len(read["trackers"]["T"]["sequences"]) == 2


def test_flags_and_exclusions_work_beside_a_dataset(call, tmp_path):
    _, split = lasot(tmp_path / "lasot")
    for name in ("car-1", "car-2"):
        for folder, content in (
            ("att", "1,0,0,0,0,0,0,0,0,0,0,0,0,1\n"),
            ("absent", flags([0] * FRAMES)),
            ("results/T", format_boxes(boxes_of(1))),
        ):
            path = tmp_path / folder / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    words = ["--dataset", "lasot", "--root", tmp_path / "lasot", *split]
    words += ["--results", tmp_path / "results", "--absent", tmp_path / "absent"]
    words += ["--attributes", tmp_path / "att", "--json-file", tmp_path / "s.json"]
    done = call(*words)
    assert "protocol lasot-matlab: the authors' own toolkit" in " ".join(done.output.split())
    found = json.loads((tmp_path / "s.json").read_text())["trackers"]["T"]
    assert set(found["attributes"]) == {"IV", "ARC"}
    with pytest.raises(ResultError, match="--exclude car-9: lasot has no sequence of that name"):
        call(*words, "--exclude", "car-9")

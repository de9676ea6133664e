"""``dytrack train --local``: no Ray, no MLflow."""

import cv2
import numpy as np
import pytest

SMALL = {
    "model.variant": "test",
    "data.resident": "[{dataset: video, root: videos}]",
    "data.pairs_per_epoch": 8,
    "data.validation_pairs": 4,
    "train.epochs": 1,
    "train.batch_size": 4,
    "train.sample_images": 0,
}


@pytest.fixture
def options(tmp_path):
    for name in ("one", "two"):
        folder = tmp_path / "videos" / name
        (folder / "img").mkdir(parents=True)
        for frame in range(3):
            image = np.full((60, 80, 3), 30 + frame, np.uint8)
            image[20:40, 30 + frame : 50 + frame] = 200
            cv2.imwrite(str(folder / f"img/{frame + 1:04d}.png"), image)
        boxes = "".join(f"{30 + frame},20,20,20\n" for frame in range(3))
        (folder / "groundtruth.txt").write_text(boxes)
    (tmp_path / "recipe.yaml").write_text("name: small\n")
    changes = {**SMALL, "data.root": tmp_path, "train.storage": tmp_path / "runs"}
    sets = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    return ["train", str(tmp_path / "recipe.yaml"), "--local", *sets]


def test_local_trains_and_says_where_the_tracker_lies(dytrack, options, tmp_path):
    done = dytrack(*options)
    assert done.returncode == 0, done.stderr
    tracker = tmp_path / "runs/small/tracker"
    assert (tracker / "tracker.json").is_file()
    said = "".join((done.stdout + done.stderr).split())
    assert f"tracker:{tracker}" in said
    assert "validationpairs" in said


def test_local_refuses_what_only_ray_does(dytrack, options, tmp_path):
    done = dytrack(*options, "--set", "train.workers=2")
    assert done.returncode != 0
    assert "train.workers: training without Ray runs 1" in " ".join(done.stderr.split())
    assert not (tmp_path / "runs").exists()

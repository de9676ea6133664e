"""Small folders for all tests that train: prepared clips, and raw datasets for the memory."""

import json

import cv2
import numpy as np
import pytest

from dytrack_platform.config import resolve


def experiment(clips, folder, **changes):
    """Make a tiny experiment on prepared clips; ``train__epochs=1`` changes ``train.epochs``."""
    values = {
        "name": "unit",
        "model": {"variant": "test", "depth": 2, "exits": [1, 2], "width": 32, "heads": 2},
        "data": {
            "train": [{"path": str(clips)}],
            "pairs_per_epoch": 32,
            "validation_pairs": 8,
            "pairs_per_clip": 4,
        },
        "train": {
            "epochs": 2,
            "batch_size": 8,
            "storage": str(folder / "runs"),
            "checkpoint_steps": 3,
            "head_lr": 1e-3,
            "backbone_lr": 1e-3,
        },
    }
    return resolve(values, {key.replace("__", "."): value for key, value in changes.items()})


@pytest.fixture(scope="session")
def recipe_below(made_clips):
    """Return a function that makes a tiny experiment on the clips, which writes below a folder."""
    return lambda folder, **changes: experiment(made_clips, folder, **changes)


@pytest.fixture
def recipe(tmp_path, recipe_below):
    """Return a function that makes a tiny experiment on the prepared clips."""
    return lambda **changes: recipe_below(tmp_path, **changes)


def _texture(rng, width, height):
    """Make a smooth colourful image: a tracker's small mistakes stay small on it."""
    small = rng.integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def _write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())


def _video(folder, rng, frames=10):
    """Move a bright square over a texture; the fourth frame's target is absent."""
    ground, thing = _texture(rng, 160, 120), rng.integers(150, 256, (24, 30, 3), np.uint8)
    boxes = []
    for frame in range(frames):
        x, y, image = 20 + 7 * frame, 30 + 4 * frame, ground.copy()
        image[y : y + 24, x : x + 30] = thing
        _write(folder / f"img/{frame + 1:04d}.png", image)
        boxes.append(f"{x},{y},30,24")
    (folder / "groundtruth.txt").write_text("\n".join(boxes) + "\n")
    absent = ["1" if frame == 3 else "0" for frame in range(frames)]
    (folder / "absent.txt").write_text("\n".join(absent) + "\n")


@pytest.fixture(scope="session")
def raw_folders(tmp_path_factory):
    """Return a folder with ``videos``, ``coco`` (with masks) and ``cutouts``."""
    root, rng = tmp_path_factory.mktemp("raw"), np.random.default_rng(0)
    for name in ("one", "two", "three"):
        _video(root / "videos" / name, rng)
    (root / "videos/train.txt").write_text("one\ntwo\n")
    (root / "videos/val.txt").write_text("three\n")
    # Two stills with a disc each, and its mask as run lengths.
    y, x = np.mgrid[:160, :240]
    mask = (x - 120) ** 2 / 60**2 + (y - 80) ** 2 / 44**2 < 1
    edges = np.flatnonzero(np.diff(mask.T.ravel())) + 1
    runs = np.diff([0, *edges.tolist(), mask.size]).tolist()
    annotations = []
    for number in (1, 2):
        _write(root / f"coco/train2017/{number:012d}.png", _texture(rng, 240, 160))
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": number,
                "bbox": [61, 37, 119, 87],
                "segmentation": {"size": [160, 240], "counts": runs},
            }
        )
    content = {
        "images": [{"id": n, "file_name": f"{n:012d}.png"} for n in (1, 2)],
        "categories": [{"id": n, "name": f"kind {n}"} for n in (1, 2)],
        "annotations": annotations,
    }
    (root / "coco/annotations").mkdir()
    (root / "coco/annotations/instances_train2017.json").write_text(json.dumps(content))
    # An upright ellipse with a corner cut off: no axis of symmetry hides a mistake.
    y, x = np.mgrid[:110, :80]
    mask = ((x - 40) ** 2 / 36**2 + (y - 55) ** 2 / 50**2 < 1) & (x + y > 60)
    rgba = np.dstack([_texture(rng, 80, 110), mask * np.uint8(255)])
    _write(root / "cutouts/thing.png", rgba)
    listed = [{"file": "thing.png", "category": "thing"}]
    (root / "cutouts/index.json").write_text(json.dumps(listed))
    return root


def resident_experiment(raw, folder, **changes):
    """Make a tiny experiment on raw folders in memory; changes as for :func:`experiment`."""
    values = {
        "name": "resident",
        "model": {"variant": "test", "depth": 2, "exits": [1, 2], "width": 32, "heads": 2},
        "data": {
            "root": str(raw),
            "resident": [
                {"dataset": "video", "root": "videos", "split": "train"},
                {"dataset": "coco", "root": "coco", "split": "train", "masks": True},
                {"dataset": "cutouts", "root": "cutouts"},
            ],
            "resident_validation": [{"dataset": "video", "root": "videos", "split": "val"}],
            "overlay": {"composed": 1.0},
            "pairs_per_epoch": 32,
            "validation_pairs": 8,
        },
        "train": {
            "epochs": 2,
            "batch_size": 8,
            "storage": str(folder / "runs"),
            "checkpoint_steps": 3,
            "report_steps": 1,
            "sample_images": 0,
            "head_lr": 1e-3,
            "backbone_lr": 1e-3,
        },
    }
    return resolve(values, {key.replace("__", "."): value for key, value in changes.items()})


@pytest.fixture(scope="session")
def resident_recipe_below(raw_folders):
    """Return a function that makes a tiny experiment on raw folders, which writes below another."""
    return lambda folder, **changes: resident_experiment(raw_folders, folder, **changes)


@pytest.fixture
def resident_recipe(tmp_path, resident_recipe_below):
    """Return a function that makes a tiny experiment on raw folders in memory."""
    return lambda **changes: resident_recipe_below(tmp_path, **changes)

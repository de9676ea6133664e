"""A small prepared folder, made once for all tests that train."""

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


@pytest.fixture
def recipe(tmp_path, made_clips):
    """Return a function that makes a tiny experiment on the prepared clips."""
    return lambda **changes: experiment(made_clips, tmp_path, **changes)

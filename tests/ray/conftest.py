"""One Ray for all tests of this tier, and a store of their own for each test's runs."""

import contextlib
import sqlite3

import mlflow
import pytest
import yaml

from dytrack_platform.experiment.cluster import session


@pytest.fixture(scope="session")
def ray_session():
    with session.ray_session(cpus=4):
        yield


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """The file of an empty MLflow store: to make its tables takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(tmp_path, monkeypatch, empty_store):
    """An empty MLflow store, also for processes that a test starts."""
    uri = f"sqlite:///{copied(empty_store, tmp_path / 'mlflow.db')}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return uri


@pytest.fixture
def other_store(tmp_path, empty_store):
    """The file of another empty store."""
    return copied(empty_store, tmp_path / "other.db")


def copied(store, path):
    """Copy a store's file."""
    with (
        contextlib.closing(sqlite3.connect(store)) as made,
        contextlib.closing(sqlite3.connect(path)) as own,
    ):
        made.backup(own)
    return path


@pytest.fixture
def values(made_clips, tmp_path):
    """A tiny experiment as nested values."""
    return {
        "name": "tiny",
        "model": {"variant": "test", "depth": 2, "exits": [1, 2], "width": 32, "heads": 2},
        "data": {
            "train": [{"path": str(made_clips)}],
            "pairs_per_epoch": 32,
            "validation_pairs": 8,
            "pairs_per_clip": 4,
        },
        "train": {
            "epochs": 2,
            "batch_size": 8,
            "workers": 2,
            "storage": str(tmp_path / "runs"),
            "checkpoint_steps": 3,
            "start_timeout_s": 180,  # a machine that other tests use: only what hangs takes longer
        },
        "search": {
            "trials": 3,
            "space": {
                "model.exits": {"placements": {"count": [1, 2]}},
                "model.recycling": {"choice": ["none", "cascade"]},
                "distillation.feature": {"loguniform": [0.01, 1.0]},
            },
            "pairs_per_epoch": 16,
        },
    }


@pytest.fixture
def recipe_file(values, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return path

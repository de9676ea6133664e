"""The platform's door: folders as the model opens them, names through the registry."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from dytrack_model import Prediction, Tracker, checkpoint
from dytrack_model.config import variant
from dytrack_model.cost import exit_gmacs
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import OperatingPoint
from dytrack_platform import load_tracker
from dytrack_platform.errors import CheckpointError
from dytrack_platform.evaluation.tracking import protocol


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    point = OperatingPoint(name="balanced", thresholds=(2.0, 0.0))
    return checkpoint.save(tmp_path / "run" / "tracker", DyTrackNetwork(variant("test")), [point])


@pytest.mark.slow
def test_a_folder_is_opened_without_ray_or_mlflow(folder):
    code = (
        "import sys, dytrack_platform\n"
        "assert not {'torch', 'mlflow', 'ray'} & set(sys.modules)\n"
        f"dytrack_platform.load_tracker({str(folder.parent)!r})\n"
        "sys.exit(bool({'mlflow', 'ray', 'pydantic'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_folder_that_holds_none_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no such tracker"):
        load_tracker(tmp_path / "gone")


def test_our_tracker_and_its_prediction_are_what_evaluation_judges(folder):
    tracker: protocol.Tracker = load_tracker(folder)
    assert isinstance(tracker, Tracker)
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
    tracker.start(frame, np.array([40.0, 30.0, 30.0, 30.0]))
    prediction: protocol.Prediction = tracker.step(frame)
    assert isinstance(prediction, Prediction)
    assert (prediction.exit_index, prediction.exit) == (1, 2)
    assert tuple(tracker.exit_gmacs) == exit_gmacs(checkpoint.load(folder).network)

"""A target of a stream that goes on elsewhere: where it is, and how fast it moved."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dytrack_model.config import variant
from dytrack_model.images import RGB
from dytrack_model.narrow import WIDE_FRAMES
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import OperatingPoint
from dytrack_model.runtime.engine import finish
from dytrack_model.runtime.torch_engine import as_engine
from dytrack_platform.serving.pacing import Audits
from dytrack_platform.serving.pictures import Origin
from dytrack_platform.serving.targets import Target
from dytrack_platform.serving.tokens import SavedStream, SavedTarget, seal, unseal

BOX = (40.0, 30.0, 30.0, 24.0)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = DyTrackNetwork(variant("test", narrow_size=96)).eval()
    point = OperatingPoint(name="balanced", thresholds=(0.0, 0.0), narrow=True)
    return SimpleNamespace(engine=as_engine(network, "cpu"), points=(point,))


def carried(target):
    """Send a target through a token."""
    (got,) = unseal(seal(SavedStream(targets=(target.saved(),)), "key"), "key").targets
    return Target.restored(got, got.point)


@pytest.mark.parametrize("wide", [0, 1, WIDE_FRAMES])
def test_a_target_that_goes_on_elsewhere_looks_as_widely_as_before(model, frames, wide):
    config, audits = model.engine.config, Audits()
    origin = Origin.cut(RGB(frames[0]), BOX, config.template_factor, config.template_size)
    target = Target("a", origin, BOX, "balanced")
    finish(model.engine, target.beginning(model, RGB(frames[0]), audits))
    finish(model.engine, target.stepping(RGB(frames[1])))
    target.tracker.pace.wide_frames = target.wide_frames = wide
    other = carried(target)
    finish(model.engine, other.resuming(model, RGB(frames[0]).size, audits))
    for frame in frames[2:8]:
        here, there = (finish(model.engine, one.stepping(RGB(frame))) for one in (target, other))
        assert here.narrow == there.narrow
        np.testing.assert_allclose(here.box_xywh, there.box_xywh, atol=1e-3)
        assert target.wide_frames == other.wide_frames
    assert here.narrow or target.wide_frames


def test_a_token_of_an_older_server_is_read(frames, monkeypatch):
    origin = Origin.cut(RGB(frames[0]), BOX, 2.0, 64)
    saved = SavedTarget(id="a", origin=origin, box_xywh=BOX, point="fast", wide_frames=2)
    written = json.dumps

    def older(values):
        for row in values["targets"]:
            del row["wide"]
        return written(values)

    monkeypatch.setattr("dytrack_platform.serving.tokens.json.dumps", older)
    token = seal(SavedStream(targets=(saved,)), "key")
    assert unseal(token, "key").targets[0].wide_frames == 0

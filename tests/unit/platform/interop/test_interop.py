"""What other tools are given is what they read back; each test skips where its tool is absent."""

import numpy as np
import pytest

from dytrack_model.prediction import Prediction
from dytrack_model.target_state import TargetState

GOLDEN = "tests/golden/tracker"


def prediction(state=TargetState.TRACKING):
    box = np.array([10.0, 20.0, 30.0, 40.0])
    return Prediction(
        box_xywh=box, predicted_iou=0.7, exit=6, exit_index=1, state=state, network_ms=1.0
    )


def test_supervision_reads_a_prediction():
    supervision = pytest.importorskip("supervision")
    found = prediction().to_supervision(tracker_id=5)
    assert isinstance(found, supervision.Detections)
    np.testing.assert_allclose(found.xyxy, [[10, 20, 40, 60]])
    assert found.confidence == pytest.approx([0.7])
    assert found.tracker_id.tolist() == [5]
    assert found.data["exit"].tolist() == [6]
    frame = supervision.BoxAnnotator().annotate(np.zeros((100, 100, 3), np.uint8), found)
    assert frame.any()


def test_supervision_is_given_nothing_where_the_target_is_lost():
    pytest.importorskip("supervision")
    assert len(prediction(TargetState.LOST).to_supervision()) == 0


def test_a_tool_that_is_absent_is_named(monkeypatch, tmp_path):
    import sys

    from dytrack_model.errors import RuntimeMissingError
    from dytrack_platform.interop.rerun_recording import RerunRecording

    for name in ("supervision", "rerun"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RuntimeMissingError, match=r"dytrack\[interop\]"):
        prediction().to_supervision()
    with pytest.raises(RuntimeMissingError, match=r"dytrack\[interop\]"):
        RerunRecording(tmp_path / "a.rrd")
    assert list(tmp_path.iterdir()) == []


def test_rerun_verifies_a_recording(tmp_path):
    pytest.importorskip("rerun")
    import subprocess
    import sys

    from dytrack_pipelines.media.overlay import Mark
    from dytrack_platform.interop.rerun_recording import RerunRecording
    from dytrack_platform.storage.outputs import is_ours

    path = tmp_path / "new" / "a.rrd"
    with RerunRecording(path) as recording:
        for state in (TargetState.TRACKING, TargetState.LOST):
            mark = Mark(box_xywh=np.array([1.0, 2.0, 3.0, 4.0]), depth=2, state=state)
            recording.write(np.zeros((24, 32, 3), np.uint8), {"dog": mark})
    assert is_ours(path)
    assert [one.name for one in path.parent.iterdir()] == ["a.rrd"]
    command = [sys.executable, "-m", "rerun", "rrd", "print", str(path)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for entity in ("/video/dog", "/predicted_iou/dog", "/exit/dog", "/lost/dog"):
        assert entity in shown


def test_cvat_is_given_the_boxes_that_python_gives():
    cvat = pytest.importorskip("cvat_sdk.auto_annotation")
    from PIL import Image

    from dytrack_model import Tracker
    from dytrack_platform.interop.cvat import CvatTracker
    from tests.unit.platform.serving.test_faults import moving

    function = CvatTracker(GOLDEN)
    assert function.spec.supported_shape_types == {"rectangle"}
    frames = [function.preprocess_image(None, Image.fromarray(moving(k))) for k in range(6)]
    shape = cvat.TrackableShape(type="rectangle", points=[40, 30, 70, 54])
    state = function.init_tracking_state(None, frames[0], shape)
    other = function.init_tracking_state(None, frames[0], shape)  # a second shape disturbs nothing
    alone = Tracker.load(GOLDEN)
    alone.start(frames[0], (40, 30, 30, 24))
    for frame in frames[1:]:
        expected, found = alone.step(frame), function.track(None, frame, state)
        function.track(None, frame, other)
        if expected.lost:
            assert found is None
        else:
            x, y, w, h = expected.box_xywh
            np.testing.assert_allclose(found.points, [x, y, x + w, y + h], atol=1e-3)

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from dytrack_platform.datasets.io.frames import VideoFrames
from dytrack_platform.datasets.sequence import VideoSequence
from dytrack_platform.errors import ConfigurationError, DataError
from dytrack_platform.evaluation.peers.catalogue import PEERS, peer_entries
from dytrack_platform.evaluation.peers.contest import hold
from dytrack_platform.storage.tree import Tree

PEERS_FOLDER = os.environ.get("DYTRACK_PEERS")
needs_files = pytest.mark.skipif(
    not PEERS_FOLDER, reason="DYTRACK_PEERS names no folder with NanoTrack's ONNX files"
)


def iou(a, b):
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    return shared / (a[:, 2:].prod(axis=1) + b[:, 2:].prod(axis=1) - shared)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A textured thing that drifts over another texture, and grows, as a video file."""
    folder = tmp_path_factory.mktemp("film")
    rng = np.random.default_rng(5)

    def texture(cells, width, height):
        small = rng.integers(0, 256, (cells, cells, 3), np.uint8)
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)

    ground, thing = texture(12, 320, 240) // 2, texture(4, 60, 48)
    thing[8:40, 8:52] = texture(3, 44, 32)
    writer = cv2.VideoWriter(
        str(folder / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (320, 240)
    )
    boxes = []
    for frame in range(16):
        x, y, w, h = 40 + 6 * frame, 60 + 3 * frame, 60 + frame, 48 + frame
        image = ground.copy()
        image[y : y + h, x : x + w] = cv2.resize(thing, (w, h))
        writer.write(image)
        boxes.append((x, y, w, h))
    writer.release()
    boxes = np.array(boxes, dtype=float)
    return VideoSequence(
        dataset="made",
        name="film",
        frames=VideoFrames.open(Tree(str(folder)), "film.avi"),
        boxes_xywh=boxes,
        visible=np.ones(16, dtype=bool),
    )


def test_mil_follows_a_video_in_its_own_process(film):
    (outcome,) = hold(peer_entries(["mil"]), [film])
    assert outcome.absent == ""
    assert outcome.about == f"OpenCV {cv2.__version__}"
    run = outcome.runs["film"]
    assert run.problem == ""
    assert iou(run.result.boxes_xywh, film.boxes_xywh)[1:].mean() > 0.3
    assert (run.result.times_s > 0).all()
    assert np.isnan(run.lost).all(), "MIL does not say"
    assert np.isnan(run.result.scores).all()


@needs_files
@pytest.mark.parametrize("name", ["nano-v1", "nano-v2", "nano-v3"])
def test_nanotrack_follows_a_thing_that_moves_and_grows(film, name):
    (outcome,) = hold(peer_entries([name], Path(PEERS_FOLDER)), [film])
    if "not found" in outcome.absent:
        pytest.skip(outcome.absent)
    assert outcome.absent == ""
    result = outcome.runs["film"].result
    assert iou(result.boxes_xywh, film.boxes_xywh)[1:].mean() > 0.6
    assert result.boxes_xywh[-1, 2] > 66, "it grew with the thing"
    assert ((result.scores[1:] > 0) & (result.scores[1:] <= 1)).all()


@pytest.mark.skipif(hasattr(cv2, "TrackerCSRT_create"), reason="this OpenCV has CSRT")
def test_where_opencv_lacks_a_tracker_the_way_out_is_told(film):
    (outcome,) = hold(peer_entries(["csrt"]), [film])
    assert outcome.absent == (
        f"not found, looked for TrackerCSRT in OpenCV {cv2.__version__} of {sys.executable}; "
        "give a Python that has opencv-contrib-python-headless with --contrib-python"
    )


def test_files_are_found_at_any_depth_and_the_others_are_named(tmp_path):
    (tmp_path / "nano").mkdir()
    for part in ("backbone", "head"):
        (tmp_path / f"nano/nanotrackv2_{part}_sim.onnx").touch()
    (tmp_path / "vitTracker.onnx").touch()
    entries = {entry.name: entry for entry in peer_entries(folder=tmp_path)}
    assert set(entries) == set(PEERS)
    assert str(tmp_path / "nano/nanotrackv2_head_sim.onnx") in entries["nano-v2"].command[-1]
    assert entries["nano-v3"].command == ()
    assert entries["nano-v3"].looked_for == (
        f"nanotrackv3_backbone.onnx and nanotrackv3_head.onnx in {tmp_path}"
    )
    assert str(entries["vit"]) == "vit (pre-release)"
    (tmp_path / "object_tracking_vittrack_2023sep.onnx").touch()
    assert str(peer_entries(["vit"], tmp_path)[0]) == "vit"


def test_without_a_folder_the_option_is_named():
    assert peer_entries(["vit"])[0].looked_for == (
        "object_tracking_vittrack_2023sep.onnx or vitTracker.onnx; give their folder with --peers"
    )


def test_the_interpreter_with_contrib_runs_only_what_needs_it(tmp_path):
    python = tmp_path / "python"
    python.touch()
    entries = peer_entries(["csrt", "mil"], contrib_python=python)
    assert [entry.command[0] for entry in entries] == [str(python), sys.executable]


def test_mistakes_are_told(tmp_path):
    with pytest.raises(ConfigurationError, match="got 'nanov2'; did you mean nano-v2"):
        peer_entries(["nanov2"])
    with pytest.raises(ConfigurationError, match="--contrib-python: gone: no such interpreter"):
        peer_entries(contrib_python=Path("gone"))
    with pytest.raises(DataError, match="--peers: gone: no such folder"):
        peer_entries(folder=Path("gone"))
    with pytest.raises(DataError, match=r"holds none of the files that were looked for: .*nano"):
        peer_entries(["nano-v2"], tmp_path)

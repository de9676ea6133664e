"""Static int8: ranges are found on pictures, kept with the tracker, void when weights change."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from dytrack_model import Tracker, checkpoint
from dytrack_model.checkpoint import SavedTracker
from dytrack_model.config import variant
from dytrack_model.errors import CheckpointError, ConfigurationError
from dytrack_model.network import DyTrackNetwork
from dytrack_model.runtime import build, export
from dytrack_model.runtime.quantisation import pairs_of


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(6):
        picture = cv2.resize(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), (160, 120))
        cv2.imwrite(str(folder / f"{k}.png"), picture)
    return folder


def test_pairs_are_cut_from_whatever_pictures_there_are(pictures, network):
    config = network.config
    pairs = list(pairs_of(pictures, config, 5))
    assert len(pairs) == 5
    template, box, search = pairs[0]
    assert template.shape == (1, config.template_size, config.template_size, 3)
    assert search.shape == (1, config.search_size, config.search_size, 3)
    assert box.shape == (1, 4)
    with pytest.raises(ConfigurationError, match="no such folder"):
        list(pairs_of(pictures / "nowhere", config))
    (pictures / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="holds no picture"):
        list(pairs_of(pictures / "empty", config))


def test_a_video_with_boxes_beside_it_gives_its_own_target(tmp_path, network):
    writer = cv2.VideoWriter(
        str(tmp_path / "video.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (160, 120)
    )
    for _ in range(4):
        frame = np.zeros((120, 160, 3), np.uint8)
        frame[40:80, 60:100] = (0, 0, 255)
        writer.write(frame)
    writer.release()
    (tmp_path / "groundtruth.txt").write_text("60,40,40,40\n" * 4)
    for template, box, _ in pairs_of(tmp_path, network.config, 2):
        np.testing.assert_allclose(box[0], [0.5, 0.5, 0.5, 0.5])
        assert template[0, 32, 32, 0] > 200
        assert template[0, 2, 2].max() < 60


def test_ranges_are_kept_and_void_when_the_weights_change(tmp_path):
    torch.manual_seed(0)
    folder = checkpoint.save(tmp_path / "t", DyTrackNetwork(variant("test")))
    ranges = {"stage0": [(-1.0, 2.0)], "head0": []}
    checkpoint.save_ranges(folder, ranges, 6)
    assert checkpoint.load(folder).ranges == ranges
    checkpoint.save(folder, DyTrackNetwork(variant("test")))
    assert checkpoint.load(folder).ranges == {}
    (folder / checkpoint.RANGES).write_text("{")
    with pytest.raises(CheckpointError, match="calibrate again"):
        checkpoint.load(folder)


@pytest.mark.slow
def test_an_export_keeps_ranges_and_int8_stays_near_fp32(tmp_path, pictures):
    pytest.importorskip("openvino")
    saved = checkpoint.load("tests/golden/tracker")
    pairs = list(pairs_of(pictures, saved.network.config))
    saved = replace(saved, ranges=export.find_ranges(saved, pairs))
    assert sum(len(rows) for rows in saved.ranges.values()) > 10
    assert all(low <= high for rows in saved.ranges.values() for low, high in rows)
    export.export(saved, tmp_path / "out", "openvino")
    described = json.loads((tmp_path / "out" / "stages.json").read_text())
    assert described["ranges"].keys() == saved.ranges.keys()
    rounded = export.load(tmp_path / "out", precision="int8")
    assert rounded.precision == "int8"
    exact = build(saved.network)
    assert export.largest_difference(rounded, exact) < 0.1
    # As by way of the tracker itself.
    again = build(saved.network, "openvino", "int8", ranges=saved.ranges)
    assert export.largest_difference(again, rounded) < 1e-6
    image = cv2.imread(str(pictures / "0.png"))
    boxes = []
    for engine in (rounded, exact):
        tracker = Tracker(engine, states=None)
        tracker.start(image, (40, 30, 40, 40))
        boxes.append(tracker.step(image).box_xywh)
    np.testing.assert_allclose(boxes[0], boxes[1], atol=2.0)


@pytest.mark.slow
def test_a_layer_whose_input_has_an_outlier_is_left_as_it_is(pictures):
    """256 steps over the range of one channel would leave none for the others."""
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    network = DyTrackNetwork(variant("test")).eval()
    pairs = list(pairs_of(pictures, network.config, 2))
    before = export.find_ranges(SavedTracker(network=network), pairs)["stage0"]
    assert all(low < high for low, high in before)
    with torch.no_grad():
        network.backbone.blocks[0].norm2.weight[0] = 1e4
    ranges = export.find_ranges(SavedTracker(network=network), pairs)
    left = [index for index, (low, high) in enumerate(ranges["stage0"]) if low == high]
    assert left == [2], "what the first block's MLP reads"
    rounded = build(network, "openvino", "int8", ranges=ranges)
    assert export.largest_difference(rounded, build(network)) < 0.1


@pytest.mark.slow
def test_ranges_of_another_network_are_refused(pictures):
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    saved = SavedTracker(network=DyTrackNetwork(variant("test")).eval())
    ranges = export.find_ranges(saved, list(pairs_of(pictures, saved.network.config, 2)))
    ranges["stage1"] = ranges["stage1"][:-1]
    with pytest.raises(CheckpointError, match="find them again"):
        build(saved.network, "openvino", "int8", ranges=ranges)

import zipfile

import numpy as np
import pytest

from dytrack_platform.errors import ConfigurationError, ResultError
from dytrack_platform.evaluation.scoring.result_files import read_boxes
from dytrack_platform.evaluation.scoring.scoreboard import find_trackers
from dytrack_platform.evaluation.tracking.exports import export, stored_results
from dytrack_platform.evaluation.tracking.protocol import SequenceResult
from dytrack_platform.evaluation.tracking.results import Fingerprint, write_result


def result(name="GOT-10k_Test_000001"):
    boxes = np.random.default_rng(0).uniform(1, 90, (3, 4))
    nothing = np.full(3, np.nan)
    return SequenceResult(
        name=name,
        boxes_xywh=boxes,
        times_s=np.array([0.0, 0.0123456789, 0.02]),
        decode_s=np.zeros(3),
        network_ms=nothing,
        exit_indices=np.full(3, -1),
        scores=nothing,
        gmacs=nothing,
        image_size=(100, 100),
    )


def test_got10ks_archive_has_a_folder_per_sequence_and_a_time_per_frame(tmp_path):
    export("got10k", [result()], tmp_path / "up.zip")
    with zipfile.ZipFile(tmp_path / "up.zip") as archive:
        folder = "GOT-10k_Test_000001"
        assert archive.namelist() == [f"{folder}/{folder}_001.txt", f"{folder}/{folder}_time.txt"]
        lines = archive.read(f"{folder}/{folder}_001.txt").decode().splitlines()
        times = archive.read(f"{folder}/{folder}_time.txt").decode().split()
    assert lines[0] == ",".join(f"{v:.3f}" for v in result().boxes_xywh[0])
    assert times == ["0.00000001", "0.01234568", "0.02000000"]


def test_trackingnets_archive_has_its_files_at_the_root(tmp_path):
    export("trackingnet", [result("-3TIfnTSM6c_2")], tmp_path / "up.zip")
    with zipfile.ZipFile(tmp_path / "up.zip") as archive:
        assert archive.namelist() == ["-3TIfnTSM6c_2.txt"]


def test_text_and_pytracking_are_read_back_as_the_same_boxes(tmp_path):
    for layout in ("text", "pytracking"):
        export(layout, [result("car-1")], tmp_path / layout)
        found = read_boxes(tmp_path / layout / "car-1.txt")
        assert np.array_equal(found, result().boxes_xywh)
    assert set(find_trackers(tmp_path / "pytracking")[0].times) == {"car-1"}


def test_an_unknown_layout_and_nan_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="format: must be one of got10k, trackingnet"):
        export("xml", [result()], tmp_path / "x")
    broken = result()
    broken.boxes_xywh[1] = np.nan
    with pytest.raises(ResultError, match="has NaN boxes, which got10k does not take"):
        export("got10k", [broken], tmp_path / "x.zip")
    assert not list(tmp_path.iterdir())


def test_a_points_results_are_found_in_an_evaluation(tmp_path):
    fingerprint = Fingerprint(model="m", point="p", dataset="d", code="c")
    write_result(tmp_path, "fast", result("b"), fingerprint)
    write_result(tmp_path, "fast", result("a"), fingerprint)
    assert [found.name for found in stored_results(tmp_path, "fast")] == ["a", "b"]
    with pytest.raises(ResultError, match="no finished result; points there: fast"):
        stored_results(tmp_path, "slow")

from dataclasses import replace

import numpy as np
import pytest

from dytrack_platform.errors import ResultError, StorageError
from dytrack_platform.evaluation.tracking import results
from dytrack_platform.evaluation.tracking.protocol import SequenceResult
from dytrack_platform.evaluation.tracking.results import (
    Fingerprint,
    read_finished,
    read_result,
    result_paths,
    write_result,
)
from dytrack_platform.storage.atomic import write_atomically

FINGERPRINT = Fingerprint(model="abc", point="thresholds(0.5,)", dataset="made: 4", code="1")


def result(name="car-1"):
    rng = np.random.default_rng(0)
    return SequenceResult(
        name=name,
        boxes_xywh=rng.uniform(0, 100, (4, 4)) / 3,
        times_s=rng.uniform(0, 1, 4),
        decode_s=rng.uniform(0, 1, 4),
        network_ms=np.array([np.nan, 1, 2, 3]),
        exit_indices=np.array([-1, 0, 2, 1]),
        scores=np.array([np.nan, 0.1, 0.2, 0.3]),
        gmacs=np.array([np.nan, 0.1, 0.2, 0.3]),
        image_size=(64, 48),
        undecoded=(3,),
        states=("", "tracking", "lost", ""),
    )


def test_a_result_is_read_back_bit_for_bit(tmp_path):
    written = result()
    write_result(tmp_path, "fast", written, FINGERPRINT)
    read = read_result(tmp_path, "fast", "car-1")
    for name in (
        "boxes_xywh",
        "times_s",
        "decode_s",
        "network_ms",
        "exit_indices",
        "scores",
        "gmacs",
    ):
        assert np.array_equal(getattr(read, name), getattr(written, name), equal_nan=True), name
    assert read.undecoded == (3,)
    assert read.states == ("", "tracking", "lost", "")
    assert read.image_size == (64, 48)


def test_newer_boxes_never_stand_beside_an_older_fingerprint(tmp_path, monkeypatch):
    write_result(tmp_path, "fast", result(), FINGERPRINT)
    newer = replace(result(), boxes_xywh=np.full((4, 4), 2.0))
    monkeypatch.setattr(results, "write_atomically", killed_after(1))
    with pytest.raises(KeyboardInterrupt):
        write_result(tmp_path, "fast", newer, replace(FINGERPRINT, model="def"))
    assert read_finished(tmp_path, "fast", "car-1", FINGERPRINT) is None


def killed_after(files):
    left = iter(range(files))

    def write(path, text):
        if next(left, None) is None:
            raise KeyboardInterrupt
        write_atomically(path, text)

    return write


def test_nothing_half_written_is_left(tmp_path):
    write_result(tmp_path, "fast", result(), FINGERPRINT)
    names = sorted(path.name for path in (tmp_path / "results" / "fast").iterdir())
    assert names == ["car-1.json", "car-1.txt"]


def test_a_finished_result_is_reused_and_the_log_says_so(tmp_path, log):
    write_result(tmp_path, "fast", result(), FINGERPRINT)
    assert read_finished(tmp_path, "fast", "car-1", FINGERPRINT) is not None
    assert "car-1 at fast: finished before with the same model, data and code" in log.getvalue()


@pytest.mark.parametrize("field", ["model", "point", "dataset", "code"])
def test_a_result_of_anything_else_is_not_reused_and_the_log_says_why(tmp_path, log, field):
    write_result(tmp_path, "fast", result(), FINGERPRINT)
    values = {name: getattr(FINGERPRINT, name) for name in ("model", "point", "dataset", "code")}
    other = Fingerprint(**{**values, field: "other"})
    assert read_finished(tmp_path, "fast", "car-1", other) is None
    assert f"{field} " in log.getvalue()
    assert "is now 'other'" in log.getvalue()


def test_a_damaged_result_is_run_again(tmp_path, log):
    write_result(tmp_path, "fast", result(), FINGERPRINT)
    boxes, sidecar = result_paths(tmp_path, "fast", "car-1")
    boxes.write_text("1,2,3,4\n")
    assert read_finished(tmp_path, "fast", "car-1", FINGERPRINT) is None
    assert "run again, the stored result is damaged" in log.getvalue()
    sidecar.write_text("{")
    assert read_finished(tmp_path, "fast", "car-1", FINGERPRINT) is None
    with pytest.raises(ResultError, match="not JSON"):
        read_result(tmp_path, "fast", "car-1")


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path, name):
    with pytest.raises(ResultError, match="not usable as the name"):
        result_paths(tmp_path, "fast", name)


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "below.txt", "x")

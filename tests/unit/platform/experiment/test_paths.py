"""A worker runs in another folder: it is told absolute paths."""

from dytrack_platform.config import resolve
from dytrack_platform.experiment.paths import with_absolute_paths


def test_local_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = {"train": [{"path": "clips"}, {"path": "s3://bucket/clips"}], "root": "raw"}
    found = with_absolute_paths(resolve({"name": "one", "data": data}))
    assert [s.path for s in found.data.train] == [str(tmp_path / "clips"), "s3://bucket/clips"]
    assert found.train.storage == str(tmp_path / "runs")
    assert found.data.root == "raw", "nothing lies below it"


def test_so_does_the_root_of_what_lies_in_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = {"root": "raw", "resident": [{"dataset": "video", "root": "videos"}]}
    found = with_absolute_paths(resolve({"name": "one", "data": data}))
    assert found.data.root == str(tmp_path / "raw")
    assert found.data.resident[0].root == "videos"


def test_so_do_the_models_that_a_training_starts_and_learns_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train, taught = {"init_from": "vit.onnx"}, {"teacher": "runs/teacher"}
    found = with_absolute_paths(resolve({"name": "one", "train": train, "distillation": taught}))
    assert found.train.init_from == str(tmp_path / "vit.onnx")
    assert found.distillation.teacher == str(tmp_path / "runs/teacher")


def test_a_tracker_of_the_package_is_known_by_its_name_everywhere():
    train, taught = {"init_from": "reference-tiny"}, {"teacher": "reference"}
    found = with_absolute_paths(resolve({"name": "one", "train": train, "distillation": taught}))
    assert (found.train.init_from, found.distillation.teacher) == ("reference-tiny", "reference")

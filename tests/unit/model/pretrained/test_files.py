import pickle  # noqa: TID251  (to make the files that must be refused or read without running)
import sys
from collections import OrderedDict
from types import ModuleType

import pytest
import torch

from dytrack_model.errors import CheckpointError, RuntimeMissingError
from dytrack_model.pretrained import files


class Payload:
    def __reduce__(self):
        return (print, ("run by a checkpoint",))


def test_a_pickle_that_runs_code_is_refused(tmp_path, capsys):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"net": Payload()}, protocol=2))
    with pytest.raises(CheckpointError, match=r"evil\.pth: damaged, or holds more than tensors"):
        files.read_tensors(tmp_path / "evil.pth")
    torch.save({"net": {"a": torch.zeros(1)}, "extra": Payload()}, tmp_path / "evil2.pth")
    with pytest.raises(CheckpointError, match=r"holds more than tensors: a (builtins\.)?print"):
        files.read_tensors(tmp_path / "evil2.pth")
    assert "run by" not in capsys.readouterr().out


@pytest.fixture
def foreign(monkeypatch):
    """Classes such as pytracking's descendants save, importable while a file is written."""
    ran = []

    class Settings:
        def __init__(self):
            self.scheduler_type = "step"

        def __setstate__(self, state):
            ran.append(state)

    class EasyDict(dict):
        pass

    for module, name, kind in (
        ("lib.train.admin.settings", "Settings", Settings),
        ("easydict", "EasyDict", EasyDict),
    ):
        kind.__module__, kind.__qualname__ = module, name
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parts[:end]), ModuleType(parts[end - 1]))
        setattr(sys.modules[module], name, kind)
    return Settings, EasyDict, ran


@pytest.mark.parametrize("zipped", [True, False])
def test_what_a_training_framework_saved_beside_the_tensors_is_left_out(tmp_path, foreign, zipped):
    settings, easy_dict, ran = foreign
    content = {
        "net": OrderedDict(weight=torch.arange(3.0)),
        "settings": settings(),
        "stats": OrderedDict(train=easy_dict(loss=[1.0, settings()])),
        "epoch": 300,
    }
    path = tmp_path / "OSTrack_ep0300.pth.tar"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    tensors = files.read_tensors(path)
    assert list(tensors) == ["weight"]
    torch.testing.assert_close(tensors["weight"], torch.arange(3.0))
    assert ran == []


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.onnx"])
def test_a_damaged_or_missing_weights_file_is_named(tmp_path, name):
    pytest.importorskip("onnx")
    with pytest.raises(CheckpointError, match=rf"{name}: no such weights file"):
        files.read_tensors(tmp_path / name)
    (tmp_path / name).write_bytes(b"no weights at all")
    with pytest.raises(CheckpointError, match=name):
        files.read_tensors(tmp_path / name)


def test_an_onnx_file_without_the_package_onnx_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "w.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(RuntimeMissingError, match=r"package onnx, which is not installed here"):
        files.read_tensors(tmp_path / "w.onnx")

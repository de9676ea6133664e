import argparse
import gzip
import pickle  # noqa: TID251  (to make the files that must be refused or read without running)
import sys
from collections import OrderedDict
from types import ModuleType

import pytest
import torch
from safetensors.torch import save

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
    (tmp_path / "w.onnx").write_bytes(b"\x08\x07")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(RuntimeMissingError, match=r"package onnx, which is not installed here"):
        files.read_tensors(tmp_path / "w.onnx")


VIT = {"patch_embed.proj.weight": torch.ones(2, 3, 4, 4), "blocks.0.attn.qkv.weight": torch.ones(6)}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; the download did not end"),
        (b"<!DOCTYPE html><html>Sign in", "is a web page, not weights"),
        (b"\n <html>", "is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        (gzip.compress(b"weights", mtime=0), "is a gzip archive: unpack it first"),
        (b"\x93NUMPY\x01\x00", "is a NumPy array"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
    ],
)
@pytest.mark.parametrize("suffix", ["pth", "safetensors", "onnx"])
def test_what_is_no_weights_is_named_for_what_it_is(tmp_path, content, said, suffix):
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=said) as caught:
        files.read_tensors(path)
    assert "weights_only" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["pth", "bin", "safetensors"])
def test_safetensors_are_known_by_their_content(tmp_path, suffix):
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(save(VIT))
    assert set(files.read_tensors(path)) == set(VIT)


def test_a_file_of_torch_named_safetensors_is_read_as_what_it_is(tmp_path):
    torch.save(VIT, tmp_path / "w.safetensors")
    assert set(files.read_tensors(tmp_path / "w.safetensors")) == set(VIT)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.base_encoder.", "module._orig_mod."])
def test_a_wrappers_prefix_is_taken_off(tmp_path, prefix):
    wrapped = {prefix + name: value for name, value in VIT.items()}
    torch.save({"model": wrapped, "args": argparse.Namespace(lr=1)}, tmp_path / "w.pth")
    assert set(files.read_tensors(tmp_path / "w.pth")) == set(VIT)


def test_of_teacher_and_student_the_teacher_counts(tmp_path):
    teacher = {f"backbone.{name}": value for name, value in VIT.items()}
    student = {f"backbone.{name}": 0 * value for name, value in VIT.items()}
    torch.save({"student": student, "teacher": teacher}, tmp_path / "a.pth")
    both = {
        **{f"student.backbone.{k}": 0 * v for k, v in VIT.items()},
        **{f"teacher.backbone.{k}": v for k, v in VIT.items()},
    }
    torch.save(both, tmp_path / "b.pth")
    for name in ("a.pth", "b.pth"):
        read = files.read_tensors(tmp_path / name)
        assert set(read) == set(VIT)
        assert all(value.eq(1).all() for value in read.values())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_tensors_that_are_not_finite_are_refused_by_name(tmp_path, bad):
    torch.save({**VIT, "norm.bias": torch.tensor([0.0, bad])}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"norm\.bias holds NaN or infinity"):
        files.read_tensors(tmp_path / "w.pth")


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_every_part_of_a_file_is_refused_in_a_sentence(tmp_path, kind):
    whole = tmp_path / f"whole.{kind}"
    torch.save(VIT, whole) if kind == "pth" else whole.write_bytes(save(VIT))
    data, path = whole.read_bytes(), tmp_path / f"part.{kind}"
    for length in [*range(0, 200, 7), *range(200, len(data), 211)]:
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError) as caught:
            files.read_tensors(path)
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)

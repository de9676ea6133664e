import subprocess
import sys

import pytest
import torch

from dytrack_model import torchvision_fix


@pytest.mark.slow
def test_timm_imports_after_the_fix_in_a_new_process():
    code = "from dytrack_model import torchvision_fix as f; f.apply(); f.apply(); import timm"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_missing_schemas_are_defined_once_and_only_where_they_are_absent(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    torchvision_fix.apply()
    assert torchvision_fix.missing_operators() == ()
    for name in ("nms", "qnms"):
        schema = str(getattr(torch.ops.torchvision, name).default._schema)
        assert "Tensor dets, Tensor scores, float iou_threshold" in schema


def test_beside_a_cuda_torch_nothing_is_defined(monkeypatch):
    defined = []
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torchvision_fix, "define_missing", defined.append)
    torchvision_fix.apply()
    assert defined == []
